"""What rerankers behind an API share: requests in parts, checked answers, and what an HTTP status means.

Reranking stands in a user's way, so that nothing is repeated here: one attempt, and the caller decides.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np

from nearest.contract import Float32, Reranker
from nearest.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    MissingDependency,
    ModelError,
    NearestError,
    Throttled,
    TimedOut,
    UnsupportedError,
)

_PARALLEL = 4


class RemoteReranker(Reranker):
    """One model of one provider. Safe to call from several threads; no request is made before it is needed."""

    most: int
    """Texts of one request at most."""

    def __init__(self, name: str, *, timeout: float, key_env: str) -> None:
        """timeout: seconds of one request. key_env: the environment variable with the key; "" for no key."""
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidInput(f"timeout must be above 0 (seconds), got {timeout!r}")
        self.name = name
        self._timeout = float(timeout)
        self._key_env = key_env

    @abstractmethod
    def _request(self, query: str, texts: list[str]) -> Iterable[tuple[int, float]]:
        """One request: the score of each text by its index, in any order."""

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

    def _key(self) -> str:
        """From the environment; it is kept nowhere."""
        key = os.environ.get(self._key_env, "").strip()
        if not key:
            raise AccessDenied(f"{self.name} needs an API key; put it in the environment variable {self._key_env}")
        return key

    def _late(self) -> TimedOut:
        return TimedOut(f"{self.name} did not answer within {self._timeout:g} s")

    def _unreadable(self, error: Exception) -> ConnectionFailed:
        return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")

    def _status(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> NearestError:
        """What an HTTP status means."""
        key = os.environ.get(self._key_env, "").strip() if self._key_env else ""
        said = (message.replace(key, "***") if key else message).strip()[:300]
        if status in (401, 403):
            where = self._key_env or "its environment variable (api_key_env=NAME says which)"
            return AccessDenied(f"{self.name} refused the API key, or lacks the right ({status}); check {where}")
        if status == 404:
            return UnsupportedError(f"{self.name}: there is no such model, or no such address ({status}): {said}")
        if status == 429:
            wait: float | None = None
            with contextlib.suppress(TypeError, ValueError):
                wait = max(float({k.lower(): v for k, v in (headers or {}).items()}.get("retry-after", "")), 0.0)
            return Throttled(f"{self.name} is asked too much: {said}", retry_after=wait)
        if status in (408, 504):
            return TimedOut(f"{self.name} did not answer in time ({status})")
        if status >= 500 or status == 409:
            return ConnectionFailed(f"{self.name} failed ({status}): {said}")
        return ModelError(f"{self.name} refused ({status}): {said}")


def client(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"{extra} rerankers need its client; run: pip install 'nearest[{extra}]'", extra=extra
        ) from error


def check_url(name: str, url: str) -> str:
    """Raises InvalidInput unless it is an address without a secret in it, since names are shown."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{name} must be a server's address, such as http://localhost:8080/rerank")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidInput(
            f"{name} holds a user, a password or parameters; put the key in an environment variable and name that: "
            "api_key_env=NAME"
        )
    return url
