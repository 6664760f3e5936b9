"""Any server with a `/rerank` address: `http:MODEL?base_url=http://localhost:8080`.

form says what it speaks. cohere, which Jina, vLLM, LiteLLM and others share: `{model, query, documents}` to
`{results: [{index, relevance_score}]}`. tei, text-embeddings-inference: `{query, texts}` to `[{index, score}]`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nearest import remote
from nearest.errors import ConnectionFailed, InvalidInput, NearestError
from nearest.rerankers._remote import RemoteReranker

if TYPE_CHECKING:
    import httpx

REQUIRES: Mapping[str, str] = {"httpx": ">=0.27,<1"}

FORMS = ("cohere", "tei")


def load(
    model: str,
    *,
    base_url: str,
    form: str = "cohere",
    api_key_env: str | None = None,
    batch: int | None = None,
    price: float | None = None,
    timeout: float = 30.0,
) -> HTTPReranker:
    """The reranker behind an address; no request is made yet.

    base_url: what comes before `/rerank`, such as `https://api.jina.ai/v1`. form: cohere or tei. api_key_env: the
    environment variable whose value is sent as a bearer token; none is sent without it. batch: texts of one request at
    most (1,000; for tei 32, its own default). price: dollars a thousand requests, 0 for a server of one's own; without
    it what reranking costs is not known. timeout: seconds of one request. Raises InvalidInput and MissingDependency.
    """
    remote.client("httpx", "http")
    if form not in FORMS:
        raise InvalidInput(f"form must be {' or '.join(FORMS)}, got {form!r}")
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise InvalidInput(f"batch must be an integer of at least 1, got {batch!r}")
    if price is not None:
        remote.check_price(price, "a thousand requests")
    most = batch or (32 if form == "tei" else 1000)
    return HTTPReranker(model, form, most, price, base_url=base_url, timeout=timeout, key_env=api_key_env or "")


class HTTPReranker(RemoteReranker):
    def __init__(
        self, model: str, form: str, most: int, price: float | None, *, base_url: str, timeout: float, key_env: str
    ) -> None:
        super().__init__(f"http:{model}", base_url=base_url, timeout=timeout, key_env=key_env)
        self.most = most
        self._model = model
        self._url = f"{base_url.rstrip('/')}/rerank"
        self._form = form
        self._price = price
        self._lock = threading.Lock()
        self._made: httpx.Client | None = None

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._made is None:
                made: httpx.Client = remote.client("httpx", "http").Client(timeout=self._timeout)
                self._made = made
            return self._made

    def _request(self, query: str, texts: list[str]) -> Iterable[tuple[int, float]]:
        body: dict[str, Any]
        if self._form == "tei":
            body = {"query": query, "texts": texts, "truncate": True}
        else:
            body = {"model": self._model, "query": query, "documents": texts, "top_n": len(texts)}
        headers = {"Authorization": f"Bearer {self._key()}"} if self._key_env else {}
        answer = self._client().post(self._url, json=body, headers=headers)
        if answer.status_code >= 300:
            raise self._status(answer.status_code, answer.text, answer.headers)
        self._count_searches(self._price, 1)
        found = answer.json()
        rows, score = (found, "score") if self._form == "tei" else (found["results"], "relevance_score")
        return [(int(row["index"]), float(row[score])) for row in rows]

    def _error(self, error: Exception) -> NearestError | None:
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return self._late()
        if isinstance(error, httpx.HTTPError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error).__name__})")
        if isinstance(error, ValueError | TypeError | KeyError):
            return self._unreadable(error)
        return None
