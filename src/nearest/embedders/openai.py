"""OpenAI's embedding models, and any server that speaks the same API: vLLM, Ollama, text-embeddings-inference.

    openai:text-embedding-3-large?dimensions=1024
    openai:BAAI/bge-m3?base_url=http://localhost:8000/v1

OpenAI's key is read from $OPENAI_API_KEY. A server named by `base_url` gets no key unless `api_key_env` names
the variable that holds one: a key must not go to whoever is at an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest.contract import Float32
from nearest.embedders._batching import Answer, Limits
from nearest.embedders._remote import Kind, RemoteEmbedder
from nearest.errors import AccessDenied, ConnectionFailed, NearestError, TimedOut
from nearest.remote import client

if TYPE_CHECKING:
    import openai

REQUIRES: Mapping[str, str] = {"openai": ">=3,<4"}
CACHED = True

_TEXTS, _TOKENS = 256, 200_000  # of 2,048 and 300,000: a smaller request is less to repeat
_OTHERS_TEXTS = 32  # what text-embeddings-inference takes by default


def load(
    model: str,
    *,
    dimensions: int | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    query_prefix: str = "",
    document_prefix: str = "",
    max_tokens: int | None = None,
    tokenizer: str | None = None,
    price: float | None = None,
    batch: int | None = None,
    parallel: int = 4,
    rpm: int | None = None,
    tpm: int | None = None,
    timeout: float = 60.0,
) -> OpenAIEmbedder:
    """The embedder of a model; no request is made yet.

    dimensions: a shorter vector (Matryoshka), where the model offers it. prefixes: put before queries and
    documents, for models that want them. max_tokens: a text, for models that are not known (512 otherwise).
    tokenizer: for exact counts, see `_tokens.load`. price: dollars a million tokens, where the list's is not
    yours. batch: texts a request. parallel: requests at once. rpm, tpm: requests and tokens a minute at
    most. timeout: seconds. Raises InvalidInput, UnsupportedError or MissingDependency.
    """
    client("openai", "openai")
    limits = Limits(batch or (_OTHERS_TEXTS if base_url else _TEXTS), _TOKENS, parallel, rpm, tpm)
    kept = {
        "dimensions": dimensions, "base_url": base_url, "api_key_env": api_key_env,
        "query_prefix": query_prefix, "document_prefix": document_prefix, "max_tokens": max_tokens,
        "tokenizer": tokenizer,
    }  # fmt: skip
    return OpenAIEmbedder(
        model, kept, limits,
        dimensions=dimensions, max_tokens=max_tokens, price=price, tokenizer=tokenizer, base_url=base_url,
        timeout=timeout, api_key_env=api_key_env or ("" if base_url else "OPENAI_API_KEY"),
        settings={}, prefixes={"query": query_prefix, "document": document_prefix},
    )  # fmt: skip


class OpenAIEmbedder(RemoteEmbedder):
    provider = "openai"

    def __init__(self, model: str, kept: Mapping[str, Any], limits: Limits, **others: Any) -> None:
        super().__init__(model, kept, limits, **others)
        self.refuses_long = self._base_url is None  # others may cut silently, as Ollama does
        self._made: openai.OpenAI | None = None

    def _client(self) -> openai.OpenAI:
        with self._lock:
            if self._made is None:
                key = self._key()
                self._made = client("openai", "openai").OpenAI(
                    api_key=key, base_url=self._base_url, timeout=self._timeout, max_retries=0
                )
            return self._made

    def _request(self, texts: list[str], kind: Kind) -> Answer:
        import openai

        answer = self._client().embeddings.create(
            model=self.model,
            input=texts,
            dimensions=self._asked or openai.omit,
            encoding_format="float" if self._base_url else openai.omit,  # not all servers know base64
        )
        vectors: list[Float32 | None] = [None] * len(texts)
        for item in answer.data:
            if not 0 <= item.index < len(texts) or vectors[item.index] is not None:
                raise ConnectionFailed(f"{self.name} answered for a text {item.index} that it was not asked for")
            vectors[item.index] = np.asarray(item.embedding, np.float32)
        tokens = getattr(answer.usage, "total_tokens", None)
        return Answer(vectors, tokens if isinstance(tokens, int) and tokens > 0 else None)

    def _error(self, error: Exception) -> NearestError | None:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return TimedOut(f"{self.name} did not answer within {self._timeout:g} s")
        if isinstance(error, openai.APIStatusError):
            if error.code == "insufficient_quota":
                return AccessDenied(f"{self.name}: the account has no credit left; see its billing page")
            return self._status(error.status_code, error.message, dict(error.response.headers))
        if isinstance(error, openai.APIConnectionError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error.__cause__ or error).__name__})")
        if isinstance(error, openai.OpenAIError | ValueError | TypeError | AttributeError):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None
