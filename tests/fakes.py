"""Deterministic stand-ins for a model and a chunker, where a test is about something else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from nearest.contract import Chunk, Chunker, Embedder, Float32
from nearest.errors import TextTooLong


class HashEmbedder(Embedder):
    """A vector for a text from its hash: equal texts are equal, others are unrelated."""

    def __init__(self, dimension: int = 16, name: str = "fake:hash", max_words: int = 1000) -> None:
        self.name = name
        self.dimension = dimension
        self.max_tokens = max_words
        self.fingerprint = f"{name}:{dimension}"
        self.embedded: list[str] = []
        self.tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        rows = np.empty((len(texts), self.dimension), np.float32)
        for i, text in enumerate(texts):
            if len(text.split()) > self.max_tokens:
                if not truncate:
                    raise TextTooLong(f"text {i} has {len(text.split())} words, the limit is {self.max_tokens}")
                self.truncated += 1
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            rows[i] = np.random.default_rng(seed).standard_normal(self.dimension)
        self.embedded += texts
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(texts) else rows

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        row: Float32 = self.embed_documents([text], truncate=truncate)[0]
        return row


class LineChunker(Chunker):
    """A chunk a line."""

    settings = {"lines": 1}  # noqa: RUF012 -- the contract's attribute

    def chunk(self, text: str) -> list[Chunk]:
        chunks: list[Chunk] = []
        at = 0
        for line in text.splitlines(keepends=True):
            chunks.append(Chunk(line, at, at + len(line), len(chunks)))
            at += len(line)
        return chunks
