"""Cohere's reranking models: `cohere:rerank-v3.5`, `cohere:rerank-multilingual-v3.0`.

The key is read from $CO_API_KEY.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nearest import remote
from nearest.errors import ConnectionFailed, NearestError
from nearest.rerankers._remote import RemoteReranker

if TYPE_CHECKING:
    import cohere

REQUIRES: Mapping[str, str] = {"cohere": ">=7,<8"}


def load(
    model: str,
    *,
    max_tokens: int | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    price: float | None = None,
    timeout: float = 30.0,
) -> CohereReranker:
    """The reranker of a model; no request is made yet.

    max_tokens: of a text, where it is not to be Cohere's default. base_url: another address that speaks Cohere's
    API; it gets no key unless `api_key_env` names the variable that holds one. price: dollars a thousand
    searches, which Cohere counts itself; without it what reranking costs is not known. timeout: seconds of one
    request. Raises InvalidInput and MissingDependency.
    """
    remote.client("cohere", "cohere")
    if price is not None:
        remote.check_price(price, "a thousand searches")
    key_env = api_key_env or ("" if base_url else "CO_API_KEY")
    return CohereReranker(model, max_tokens, base_url, price, timeout=timeout, key_env=key_env)


class CohereReranker(RemoteReranker):
    most = 1000  # what Cohere recommends as the most

    def __init__(
        self,
        model: str,
        max_tokens: int | None,
        base_url: str | None,
        price: float | None,
        *,
        timeout: float,
        key_env: str,
    ) -> None:
        super().__init__(f"cohere:{model}", base_url=base_url, timeout=timeout, key_env=key_env)
        self._model = model
        self._max_tokens = max_tokens
        self._price = price
        self._lock = threading.Lock()
        self._made: cohere.ClientV2 | None = None

    def _client(self) -> cohere.ClientV2:
        with self._lock:
            if self._made is None:
                address = {"base_url": self._base_url} if self._base_url else {}
                made: cohere.ClientV2 = remote.client("cohere", "cohere").ClientV2(
                    self._key(), timeout=self._timeout, **address
                )
                self._made = made
            return self._made

    def _request(self, query: str, texts: list[str]) -> Iterable[tuple[int, float]]:
        some: dict[str, Any] = {} if self._max_tokens is None else {"max_tokens_per_doc": self._max_tokens}
        answer = self._client().rerank(
            model=self._model, query=query, documents=texts, request_options={"max_retries": 0}, **some
        )
        billed = answer.meta.billed_units if answer.meta else None
        self._count_searches(self._price, billed.search_units if billed else None)
        return [(int(row.index), float(row.relevance_score)) for row in answer.results]

    def _error(self, error: Exception) -> NearestError | None:
        import httpx
        from cohere.core.api_error import ApiError

        if isinstance(error, ApiError) and error.status_code and error.status_code >= 300:
            body = error.body
            said = body.get("message", body) if isinstance(body, dict) else body
            return self._status(error.status_code, str(said or ""), error.headers)
        if isinstance(error, httpx.TimeoutException):
            return self._late()
        if isinstance(error, httpx.HTTPError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error).__name__})")
        if isinstance(error, ApiError | ValueError | TypeError | AttributeError) or "ParsingError" in str(type(error)):
            return self._unreadable(error)
        return None
