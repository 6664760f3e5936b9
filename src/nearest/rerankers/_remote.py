"""What rerankers behind an API share: requests in parts, and answers that are checked.

Reranking stands in a user's way, so that nothing is repeated here: one attempt, and the caller decides.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nearest import remote
from nearest.contract import Float32, Reranker, Spent
from nearest.errors import ConnectionFailed, InvalidInput, NearestError, TimedOut

_PARALLEL = 4


class RemoteReranker(Reranker):
    """One model of one provider. Safe to call from several threads; no request is made before it is needed."""

    most: int
    """Texts of one request at most."""

    def __init__(self, name: str, *, base_url: str | None, timeout: float, key_env: str) -> None:
        """timeout: seconds of one request. key_env: the environment variable with the key; "" for no key."""
        if base_url is not None:
            remote.check_url(base_url)
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidInput(f"timeout must be above 0 (seconds), got {timeout!r}")
        self.name = name
        self._base_url = base_url
        self._timeout = float(timeout)
        self._key_env = key_env
        self._counting = threading.Lock()

    @abstractmethod
    def _request(self, query: str, texts: list[str]) -> Iterable[tuple[int, float]]:
        """One request, counted once it is answered (`_count`): the score of each text by its index, in any order."""

    @abstractmethod
    def _error(self, error: Exception) -> NearestError | None:
        """What the client raised, as our error; None if it is not the client's."""

    def scores(self, query: str, texts: Sequence[str]) -> Float32:
        parts = [list(texts[at : at + self.most]) for at in range(0, len(texts), self.most)]
        if len(parts) <= 1:
            return self._part(query, parts[0]) if parts else np.empty(0, np.float32)
        with ThreadPoolExecutor(min(len(parts), _PARALLEL), "rerank") as pool:
            return np.concatenate(list(pool.map(lambda part: self._part(query, part), parts)))

    def _part(self, query: str, texts: list[str]) -> Float32:
        try:
            pairs = list(self._request(query, texts))
        except NearestError:
            raise
        except Exception as error:
            known = self._error(error)
            if known is None:
                raise
            raise known from None  # the client's own message may hold a part of the key
        scores: Float32 = np.full(len(texts), np.nan, np.float32)
        for index, score in pairs:
            if not 0 <= index < len(texts) or not np.isnan(scores[index]):
                raise ConnectionFailed(f"{self.name} answered for a text {index} that it was not asked for")
            scores[index] = score
        if not np.isfinite(scores).all():
            raise ConnectionFailed(f"{self.name} left {int((~np.isfinite(scores)).sum())} texts without a score")
        return scores

    def _count(self, tokens: tuple[int, int] = (0, 0), dollars: float | None = None) -> None:
        """One request that was answered. tokens: read and written, where a model tells. dollars: None if not known."""
        with self._counting:
            self.spent += Spent(1, *tokens, dollars)

    def _count_searches(self, price: float | None, searches: float | None) -> None:
        """The same, of a provider that bills searches. price: dollars a thousand; searches: None if nobody told."""
        self._count(dollars=None if price is None or searches is None else price * searches / 1000)

    def _key(self) -> str:
        return remote.key(self.name, self._key_env)

    def _late(self) -> TimedOut:
        return TimedOut(f"{self.name} did not answer within {self._timeout:g} s")

    def _unreadable(self, error: Exception) -> ConnectionFailed:
        return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")

    def _status(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> NearestError:
        return remote.status(self.name, code, message, headers or {}, self._key_env)
