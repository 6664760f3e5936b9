"""The sentences chunker: as many whole sentences as fit a size in tokens; no sentence is cut that fits.

One that is longer than the size is cut as `recursive` does. For where sentences end see `_sentences`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

from nearest.chunkers import _cut, _sentences


class Sentences(_cut.Cutter):
    """size, overlap: tokens, without the model's special ones; what overlaps are whole sentences."""

    name = "sentences"

    def breaks(self, text: str) -> Iterable[int]:
        return _sentences.starts(text)


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int | None = None) -> Sentences:
    """overlap: the last sentences of a chunk, of at most so many tokens, begin the next one too; an eighth of
    the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Sentences(tokenizer, size, overlap)
