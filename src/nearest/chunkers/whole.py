"""The whole chunker: a document is one chunk. For short documents, which a model reads at once.

A text over the model's limit is then for the embedder to refuse or to cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from nearest.contract import Chunk, Chunker


class Whole(Chunker):
    settings: Mapping[str, Any] = {"name": "whole"}

    def chunk(self, text: str) -> list[Chunk]:
        return [Chunk(text, 0, len(text), 0)] if text.strip() else []


def make(tokenizer: Tokenizer) -> Whole:
    return Whole()
