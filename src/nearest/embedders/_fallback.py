"""A second way to the same model, for when the first does not answer: a proxy, another region, an own server.

Only where the vectors are comparable: the two must have one fingerprint and one dimension. Every use is logged as a
warning and counted in `usage.fallback`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nearest.contract import Embedder, Float32, Usage
from nearest.errors import ConnectionFailed, InvalidInput, ModelMismatch, TextsFailed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger("nearest")


class Fallback(Embedder):
    """Asks `first`; what it could not be asked for (ConnectionFailed, TimedOut, Throttled) goes to `second`.

    Raises ModelMismatch where one of them gives vectors of another dimension.
    """

    def __init__(self, first: Embedder, second: Embedder) -> None:
        """Raises InvalidInput if their vectors are not comparable."""
        if first.fingerprint != second.fingerprint:
            raise InvalidInput(
                f"{second.name} cannot stand in for {first.name}: its vectors are others; "
                "a fallback is the same model, with the same settings, at another address"
            )
        self.name = first.name
        self.fingerprint = first.fingerprint
        self.max_tokens = min(first.max_tokens, second.max_tokens)
        self.price = first.price
        self.estimated = first.estimated
        self.note = first.note
        self.remote = first.remote or second.remote
        self._first, self._second = first, second
        self._lock = threading.Lock()
        self._stood_in = 0

    @functools.cached_property
    def dimension(self) -> int:  # type: ignore[override] # an attribute, found out when first read
        try:
            return self._first.dimension
        except ConnectionFailed as error:
            _log.warning("%s did not answer (%s); %s tells its dimension", self.name, error, self._second.name)
            return self._second.dimension

    @property
    def unprobed(self) -> bool:  # type: ignore[override] # as below
        return self._first.unprobed

    def expect(self, dimension: int) -> None:
        self._first.expect(dimension)
        self._second.expect(dimension)

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # as above
        return self._first.tokenizer

    @property
    def truncated(self) -> int:  # type: ignore[override] # as above
        return self._first.truncated + self._second.truncated

    @property
    def usage(self) -> Usage:  # type: ignore[override] # the sum of both
        both = self._first.usage + self._second.usage
        return replace(both, texts=self._first.usage.texts, fallback=self._stood_in)

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._either(
            lambda: self._first.embed_documents(texts, truncate=truncate),
            lambda rows: self._second.embed_documents([texts[i] for i in rows], truncate=truncate),
            len(texts),
        )

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._either(
            lambda: self._first.embed_queries(texts, truncate=truncate),
            lambda rows: self._second.embed_queries([texts[i] for i in rows], truncate=truncate),
            len(texts),
        )

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        row: Float32 = self.embed_queries([text], truncate=truncate)[0]
        return row

    def _either(self, first: Callable[[], Float32], second: Callable[[list[int]], Float32], n: int) -> Float32:
        try:
            return self._checked(first, n, self._first)
        except ConnectionFailed as error:
            self._told(n, error)
            return self._checked(lambda: second(list(range(n))), n, self._second)
        except TextsFailed as error:
            rows = [row for row, reason in error.failed.items() if isinstance(reason, ConnectionFailed)]
            if not rows:
                raise
            self._told(len(rows), error.failed[rows[0]])
            vectors: Float32 = np.array(error.vectors)
            failed = {row: reason for row, reason in error.failed.items() if row not in rows}
            try:
                vectors[rows] = self._checked(lambda: second(rows), len(rows), self._second)
            except TextsFailed as again:
                vectors[rows] = again.vectors
                failed |= {rows[row]: reason for row, reason in again.failed.items()}
            if failed:
                raise TextsFailed(dict(sorted(failed.items())), vectors) from None
            return vectors

    def _checked(self, embed: Callable[[], Float32], n: int, who: Embedder) -> Float32:
        """Raises ModelMismatch for vectors of another dimension: of an unknown model the fingerprint does not tell."""
        failure: TextsFailed | None = None
        try:
            vectors = embed()
        except TextsFailed as error:
            vectors, failure = error.vectors, error
        if n and vectors.shape != (n, self.dimension):
            raise ModelMismatch(
                f"{who.name} gave vectors of shape {vectors.shape} where {(n, self.dimension)} was expected; "
                f"{self._first.name} and its fallback {self._second.name} are not the same model: nothing was written"
            )
        if failure is not None:
            raise failure
        return vectors

    def _told(self, n: int, error: Exception) -> None:
        with self._lock:
            self._stood_in += n
        _log.warning("%s did not answer (%s); %d texts go to %s", self.name, error, n, self._second.name)
