"""The recursive chunker: cuts at the largest boundary that fits a size in tokens.

Boundaries, largest first: blank lines, line ends, sentence ends, words, and inside a word only where it
is long. Among those in the second half of what fits, the last of the largest kind is taken: a heading
does not become a chunk of its own, and no chunk but the last falls below half the size.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from nearest.chunkers import _cut

DEFAULT_SIZE = _cut.DEFAULT_SIZE


class Recursive(_cut.Cutter):
    """size, overlap: tokens, without the model's special ones. See the head of the file."""

    name = "recursive"


def make(tokenizer: Tokenizer, *, size: int = DEFAULT_SIZE, overlap: int | None = None) -> Recursive:
    """overlap: an eighth of the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Recursive(tokenizer, size, overlap)
