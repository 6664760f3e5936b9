"""The tokens chunker: chunks of one length, each with the same overlap, wherever that cuts the text.

A chunk ends between two words, so that what is counted is what is embedded: half a word is read as other tokens.
Each but the last is full to within a word, and repeats as many tokens of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from nearest.chunkers import _cut
from nearest.chunkers._words import Words


class Tokens(_cut.Cutter):
    """size, overlap: tokens, without the model's special ones."""

    name = "tokens"

    def levels(self, words: Words) -> Sequence[Sequence[int]]:
        return ()


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int | None = None) -> Tokens:
    """overlap: an eighth of the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Tokens(tokenizer, size, overlap)
