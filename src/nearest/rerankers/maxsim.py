"""Late interaction: each token of the query finds its most similar token of the text, and these maxima are summed.

ColBERT, Khattab & Zaharia 2020. The token vectors are those of a ColBERT checkpoint, read as its own files say (see
`_colbert`); or of a local embedding model, without its pooling, at unit length and without special tokens. Where a
collection holds token vectors of the same model (`token_vectors` of `nearest.open`), those of the texts are taken from
there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Float32, LateInteraction
from nearest.encoder import bert, files, runtime
from nearest.errors import InvalidInput, ModelError
from nearest.rerankers import _colbert

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

REQUIRES: Mapping[str, str] = {}  # part of the default installation


Precision = Literal["f32", "native"]


def load(
    model: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    max_tokens: int | None = None,
    precision: str = "native",
) -> MaxSim:
    """The reranker of a model: `colbert-ir/colbertv2.0`, `all-MiniLM-L6-v2`, `org/name` as on the hub, or a folder.

    max_tokens: of a text that are read, special ones included; by default what a checkpoint's settings say (180, say),
    or all that an embedding model can. precision: native is the processor's fastest (bfloat16 where it has it); f32
    gives the vectors of the reference implementation to within 0.001. Raises ModelError if the files are missing,
    altered or of a kind that does not run here, and InvalidInput.
    """
    if precision not in ("f32", "native"):
        raise InvalidInput(f"precision must be f32 or native, got {precision!r}")
    place, sha256 = files.locate(model, folder, ("modules.json", _colbert.METADATA))
    written = [] if max_tokens is None else [f"max_tokens={max_tokens}"]
    written += ["precision=f32"] if precision == "f32" else []
    name = f"maxsim:{model}{'?' if written else ''}{'&'.join(written)}"
    return MaxSim(name, place, sha256, max_tokens, "f32" if precision == "f32" else "native")


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


class _Tokens(NamedTuple):
    """One text as the model reads it. attended: how many of the ids all others look at, the first ones.

    kept: places of the ids whose vectors count.
    """

    ids: list[int]
    attended: int
    kept: list[int]


class MaxSim(LateInteraction):
    """One model. Safe to call from several threads at once; nothing heavy is loaded before the first call."""

    batch = 2 * runtime.BATCH_TEXTS

    def __init__(
        self, name: str, folder: Path, sha256: str, max_tokens: int | None = None, precision: Precision = "native"
    ) -> None:
        """folder: of the model's files. sha256: of its weights, in hexadecimal. See `load`."""
        self.name = name
        self._folder = folder
        self._sha256 = sha256
        self._precision = precision
        self._config = runtime.read_json(folder, "config.json")
        bert.check(self._config)
        self._colbert = _colbert.read(folder, self._config)
        settings = runtime.read_json(folder, "sentence_bert_config.json", {})
        self._lowercase = bool(settings.get("do_lower_case"))
        self._positions: int = self._config["max_position_embeddings"] - bert.first_position(self._config)
        self.max_tokens = self._positions if self._colbert is None else self._colbert.settings.document_length
        self.dimension: int = self._config["hidden_size"] if self._colbert is None else len(self._colbert.projection)
        self.fingerprint = f"maxsim:{sha256}{':lower' if self._lowercase else ''}"
        if self._colbert is not None:
            self.fingerprint += f":{self._colbert.fingerprint}"
        if max_tokens is not None:
            if not isinstance(max_tokens, int) or not 8 <= max_tokens <= self._positions:
                raise InvalidInput(f"max_tokens must be from 8 to {self._positions}, got {max_tokens!r}")
            self.max_tokens = max_tokens
            self.fingerprint += f":{max_tokens}"
        self._lock = threading.Lock()
        self._made: runtime.Compiled | None = None

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return runtime.tokenizer(self._folder, self._config, lowercase=self._lowercase)

    @cached_property
    def _skipped(self) -> frozenset[int]:
        return frozenset() if self._colbert is None else self._colbert.skipped(self._tokenizer)

    def _compiled(self) -> runtime.Compiled:
        with self._lock:
            if self._made is None:
                self._made = runtime.compiled(
                    self._folder, self._sha256, self._config, "tokens", "THROUGHPUT", self._precision
                )
            return self._made

    def token_vectors(self, texts: Sequence[str]) -> list[Float32]:
        """float32, (t, d) a text, each row of unit length; a text without a token of its own has those of [CLS]."""
        return self._vectors([self._document(encoding) for encoding in self._tokenizer.encode_batch(list(texts))])

    def query_vectors(self, queries: Sequence[str]) -> list[Float32]:
        """As `token_vectors`; for a ColBERT checkpoint with its marker for queries, filled up to their length."""
        return self._vectors([self._query(encoding) for encoding in self._tokenizer.encode_batch(list(queries))])

    def _document(self, encoding: Encoding) -> _Tokens:
        if self._colbert is None:
            ids, special = _cut(encoding, self.max_tokens)
            return _Tokens(ids, len(ids), [at for at, each in enumerate(special) if not each] or [0])
        ids = self._marked(encoding, self._colbert.settings.document_marker, self.max_tokens)
        return _Tokens(ids, len(ids), [at for at, each in enumerate(ids) if each not in self._skipped] or [0])

    def _query(self, encoding: Encoding) -> _Tokens:
        if self._colbert is None:
            return self._document(encoding)
        how = self._colbert.settings
        ids = self._marked(encoding, how.query_marker, how.query_length)
        attended = len(ids)
        if how.expand:
            ids += [self._colbert.token(self._tokenizer, how.mask)] * (how.query_length - len(ids))
        return _Tokens(ids, len(ids) if how.attend else attended, list(range(len(ids))))

    def _marked(self, encoding: Encoding, marker: str, limit: int) -> list[int]:
        """A text's ids, with the marker in the second place."""
        assert self._colbert is not None
        ids, _ = _cut(encoding, limit - bool(marker))
        return [ids[0], self._colbert.token(self._tokenizer, marker), *ids[1:]] if marker else ids

    def _vectors(self, texts: Sequence[_Tokens]) -> list[Float32]:
        vectors: list[Float32] = [np.empty((0, self.dimension), np.float32)] * len(texts)
        if not texts:
            return vectors

        def batch(rows: list[int]) -> tuple[list[int], Sequence[NDArray[np.int32]]]:
            ids, _ = runtime.pad([texts[row].ids for row in rows], self._positions)
            attended = np.array([[texts[row].attended] for row in rows])
            return rows, (ids, (np.arange(ids.shape[1]) < attended).astype(np.int32))

        for rows, found in self._compiled().stream(map(batch, runtime.batches([len(text.ids) for text in texts]))):
            for row, outputs in zip(rows, found, strict=True):
                kept = outputs[texts[row].kept]
                if self._colbert is not None:
                    kept = kept @ self._colbert.projection.T
                vectors[row] = kept / np.linalg.norm(kept, axis=1, keepdims=True)
        if not all(np.isfinite(rows).all() for rows in vectors):
            raise ModelError(f"{self.name} gave a vector that is not finite; its weights are damaged")
        return vectors

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        """From 0 to about the number of the query's tokens."""
        return self.scores_of_vectors(query, self.token_vectors(texts))

    def scores_of_vectors(self, query: str, vectors: Sequence[Float32]) -> Float32:
        (first,) = self.query_vectors([query])
        return maxsim(first, vectors)


def _cut(encoding: Encoding, limit: int) -> tuple[list[int], list[int]]:
    """Its ids, at most so many with the special ones, which stay; and which of them are special (1)."""
    ids, special = list(encoding.ids), list(encoding.special_tokens_mask)
    if len(ids) <= limit:
        return ids, special
    ending = next((n for n, each in enumerate(reversed(special)) if not each), 0)
    over = slice(limit - ending, len(ids) - ending)
    del ids[over], special[over]
    return ids, special
