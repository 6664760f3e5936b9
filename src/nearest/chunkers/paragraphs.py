"""The paragraphs chunker: as many whole paragraphs as fit a size in tokens.

Paragraphs are parted by blank lines. One that is longer than the size is cut as `recursive` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from nearest.chunkers import _cut
from nearest.chunkers._words import Words


class Paragraphs(_cut.Cutter):
    """size, overlap: tokens, without the model's special ones; what overlaps are whole paragraphs."""

    name = "paragraphs"

    def units(self, words: Words) -> Sequence[int]:
        return words.blank_lines


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int = 0) -> Paragraphs:
    """overlap: the last paragraphs of a chunk, of at most so many tokens, begin the next one too.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Paragraphs(tokenizer, size, overlap)
