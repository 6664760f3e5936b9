"""Late interaction: each token of the query finds its most similar token of the text, and these maxima are summed.

ColBERT, Khattab & Zaharia 2020. The token vectors are those of a local embedding model, without its pooling, at
unit length and without special tokens. Where a collection holds token vectors of the same model (`token_vectors` of
`nearest.open`), those of the texts are taken from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearest.contract import Float32, LateInteraction
from nearest.encoder import bert, files, runtime
from nearest.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REQUIRES: Mapping[str, str] = {}  # part of the default installation


def load(model: str, *, folder: str | os.PathLike[str] | None = None) -> MaxSim:
    """The reranker of an embedding model: `all-MiniLM-L6-v2`, `org/name` as on the Hugging Face hub, or a folder.

    Raises ModelError if the files are missing, altered or of a kind that does not run here, and UnsupportedError
    for ColBERT's own checkpoints, whose markers and projection are not implemented.
    """
    place, sha256 = files.locate(model, folder)
    return MaxSim(f"maxsim:{model}", place, sha256)


def maxsim(query: Float32, texts: Sequence[Float32]) -> Float32:
    """float32, (n,): for each text the sum over the query's tokens of the largest inner product with one of its own.

    query: (q, d). texts: (t, d) each, t of 1 or more.
    """
    if not len(texts):
        return np.empty(0, np.float32)
    starts = np.cumsum([0, *(len(text) for text in texts[:-1])])
    products = np.concatenate(list(texts)) @ query.T
    scores: Float32 = np.maximum.reduceat(products, starts, axis=0).sum(axis=1, dtype=np.float32)
    return scores


class MaxSim(LateInteraction):
    """One model. Safe to call from several threads at once; nothing heavy is loaded before the first call."""

    batch = 2 * runtime.BATCH_TEXTS

    def __init__(self, name: str, folder: Path, sha256: str) -> None:
        """folder: of the model's files. sha256: of its weights, in hexadecimal. See `load`."""
        self.name = name
        self._folder = folder
        self._sha256 = sha256
        self._config = runtime.read_json(folder, "config.json")
        bert.check(self._config)
        kinds = self._config.get("architectures") or []
        if any("colbert" in kind.lower() for kind in kinds):
            raise UnsupportedError(f"{folder} is a ColBERT checkpoint, which does not run here; use an embedding model")
        settings = runtime.read_json(folder, "sentence_bert_config.json", {})
        self._lowercase = bool(settings.get("do_lower_case"))
        self.fingerprint = f"maxsim:{sha256}{':lower' if self._lowercase else ''}"
        self.dimension: int = self._config["hidden_size"]
        self.max_tokens: int = self._config["max_position_embeddings"] - bert.first_position(self._config)
        self._lock = threading.Lock()
        self._made: runtime.Compiled | None = None

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = runtime.tokenizer(self._folder, self._config, lowercase=self._lowercase)
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    def _compiled(self) -> runtime.Compiled:
        with self._lock:
            if self._made is None:
                self._made = runtime.compiled(self._folder, self._sha256, self._config, "tokens", "THROUGHPUT")
            return self._made

    def token_vectors(self, texts: Sequence[str]) -> list[Float32]:
        """float32, (t, d) a text, each row of unit length; a text without a token of its own has those of [CLS]."""
        vectors: list[Float32] = [np.empty((0, self.dimension), np.float32)] * len(texts)
        if not len(texts):
            return vectors
        encodings = self._tokenizer.encode_batch(list(texts))
        batches = (
            (rows, runtime.pad([encodings[i].ids for i in rows], self.max_tokens))
            for rows in runtime.batches([len(encoding) for encoding in encodings])
        )
        for rows, found in self._compiled().stream(batches):
            for row, outputs in zip(rows, found, strict=True):
                own = [at for at, special in enumerate(encodings[row].special_tokens_mask) if not special] or [0]
                kept = outputs[own]
                vectors[row] = kept / np.linalg.norm(kept, axis=1, keepdims=True)
        if not all(np.isfinite(rows).all() for rows in vectors):
            raise ModelError(f"{self.name} gave a vector that is not finite; its weights are damaged")
        return vectors

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        """From 0 to about the number of the query's tokens."""
        first, *others = self.token_vectors([query, *texts])
        return maxsim(first, others)

    def scores_of_vectors(self, query: str, vectors: Sequence[Float32]) -> Float32:
        (first,) = self.token_vectors([query])
        return maxsim(first, vectors)
