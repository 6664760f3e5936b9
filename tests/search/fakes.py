"""Rerankers whose verdict a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from nearest.contract import Float32, LateInteraction, Reranker


class Judge(Reranker):
    """Scores by a function of the text; waits for `gate` in every call, and counts the texts of each."""

    name = "fake:judge"

    def __init__(self, score: Callable[[str], float], batch: int | None = None) -> None:
        self.score = score
        self.batch = batch
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __repr__(self) -> str:  # in the names of tests, which must be the same in every worker
        return self.name

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        self.calls.append(len(texts))
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return np.array([self.score(text) for text in texts], np.float32)


class Late(LateInteraction):
    """Scores by the sum of the token vectors; told apart from scoring texts. A token's vector is a word's."""

    name = "fake:late"

    def __init__(self, dimension: int = 4, seed: int = 0) -> None:
        self.dimension = dimension
        self.fingerprint = f"{self.name}:{dimension}:{seed}"
        self.seed = seed
        self.used: list[str] = []
        self.read = 0  # texts

    def token_vectors(self, texts: Sequence[str]) -> list[Float32]:
        self.read += len(texts)
        return [np.stack([self._vector(word) for word in text.split()]) for text in texts]

    def _vector(self, word: str) -> Float32:
        row = np.random.default_rng([self.seed, *word.encode()]).standard_normal(self.dimension)
        unit: Float32 = (row / np.linalg.norm(row)).astype(np.float32)
        return unit

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        self.used.append("texts")
        return np.zeros(len(texts), np.float32)

    def scores_of_vectors(self, query: str, vectors: Sequence[Float32]) -> Float32:
        self.used.append("vectors")
        return np.array([rows.sum() for rows in vectors], np.float32)
