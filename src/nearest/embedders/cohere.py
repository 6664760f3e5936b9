"""Cohere's embedding models: `cohere:embed-v4.0`, `cohere:embed-english-v3.0`, `cohere:embed-multilingual-v3.0`.

Documents and queries are embedded as such (`search_document`, `search_query`); for classification and
clustering, `cohere:embed-v4.0?task=clustering` embeds both alike. The key is read from $CO_API_KEY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest.contract import Float32
from nearest.embedders._batching import Answer, Limits
from nearest.embedders._remote import Kind, RemoteEmbedder
from nearest.errors import ConnectionFailed, InvalidInput, NearestError, TimedOut
from nearest.remote import client

if TYPE_CHECKING:
    import cohere

REQUIRES: Mapping[str, str] = {"cohere": ">=7,<8"}
CACHED = True

TASKS: Mapping[str, Mapping[Kind, str]] = {
    "search": {"document": "search_document", "query": "search_query"},
    "classification": {"document": "classification", "query": "classification"},
    "clustering": {"document": "clustering", "query": "clustering"},
}
SHORT = {"embed-v3": "embed-multilingual-v3.0", "embed-v4": "embed-v4.0"}
_TEXTS, _TOKENS = 96, 128_000


def load(
    model: str,
    *,
    dimensions: int | None = None,
    task: str = "search",
    base_url: str | None = None,
    api_key_env: str | None = None,
    max_tokens: int | None = None,
    tokenizer: str | None = None,
    price: float | None = None,
    parallel: int = 4,
    rpm: int | None = None,
    tpm: int | None = None,
    timeout: float = 60.0,
) -> CohereEmbedder:
    """The embedder of a model; no request is made yet.

    task: search, classification or clustering. The others: see `openai.load`. `embed-v3` and `embed-v4` are
    short for embed-multilingual-v3.0 and embed-v4.0. Raises InvalidInput, UnsupportedError or MissingDependency.
    """
    client("cohere", "cohere")
    if task not in TASKS:
        raise InvalidInput(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    kept = {
        "dimensions": dimensions, "task": task, "base_url": base_url,
        "api_key_env": api_key_env, "max_tokens": max_tokens, "tokenizer": tokenizer,
    }  # fmt: skip
    return CohereEmbedder(
        SHORT.get(model, model), kept, Limits(_TEXTS, _TOKENS, parallel, rpm, tpm),
        dimensions=dimensions, max_tokens=max_tokens, price=price, tokenizer=tokenizer, base_url=base_url,
        timeout=timeout, api_key_env=api_key_env or ("" if base_url else "CO_API_KEY"),
        settings={"task": task}, task=task,
    )  # fmt: skip


class CohereEmbedder(RemoteEmbedder):
    provider = "cohere"
    refuses_long = True

    def __init__(self, model: str, kept: Mapping[str, Any], limits: Limits, *, task: str, **others: Any) -> None:
        super().__init__(model, kept, limits, **others)
        self._inputs = TASKS[task]
        self._made: cohere.ClientV2 | None = None

    def _client(self) -> cohere.ClientV2:
        with self._lock:
            if self._made is None:
                key = self._key()
                address = {"base_url": self._base_url} if self._base_url else {}
                self._made = client("cohere", "cohere").ClientV2(key, timeout=self._timeout, **address)
            return self._made

    def _request(self, texts: list[str], kind: Kind) -> Answer:
        some: dict[str, Any] = {"output_dimension": self._asked} if self._asked else {}
        answer = self._client().embed(
            model=self.model,
            input_type=self._inputs[kind],
            texts=texts,
            embedding_types=["float"],
            truncate="NONE",
            request_options={"max_retries": 0},
            **some,
        )
        found = answer.embeddings.float_
        if found is None or len(found) > len(texts):
            raise ConnectionFailed(f"{self.name} answered {len(found or ())} vectors for {len(texts)} texts")
        if len(found) < len(texts):  # they have no numbers: which are missing is not known, unless it says
            said = answer.texts or []
            if len(said) != len(found):
                raise ConnectionFailed(f"{self.name} answered {len(found)} vectors for {len(texts)} texts")
            by_text = dict(zip(said, found, strict=True))
            rows = [by_text.get(text) for text in texts]
        else:
            rows = list(found)
        vectors: list[Float32 | None] = [None if row is None else np.asarray(row, np.float32) for row in rows]
        billed = getattr(getattr(answer.meta, "billed_units", None), "input_tokens", None)
        return Answer(vectors, int(billed) if billed else None)

    def _error(self, error: Exception) -> NearestError | None:
        import httpx
        from cohere.core.api_error import ApiError

        if isinstance(error, ApiError) and error.status_code and error.status_code >= 300:
            body = error.body
            said = body.get("message", body) if isinstance(body, dict) else body
            return self._status(error.status_code, str(said or ""), error.headers)
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(f"{self.name} did not answer within {self._timeout:g} s")
        if isinstance(error, httpx.HTTPError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error).__name__})")
        if isinstance(error, ApiError | ValueError | TypeError | AttributeError) or "ParsingError" in str(type(error)):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None
