"""Google's embedding models over the Gemini API: `gemini:gemini-embedding-001?dimensions=768`.

Documents and queries are embedded as such (`retrieval_document`, `retrieval_query`); another `task` embeds both
alike. The key is read from $GEMINI_API_KEY. What is over a model's limit the API cuts without a word; it
is refused here, by an estimate of its tokens unless `tokenizer` names the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest.contract import Float32
from nearest.embedders import _registry
from nearest.embedders._batching import Answer, Limits
from nearest.embedders._remote import Kind, RemoteEmbedder
from nearest.errors import ConnectionFailed, InvalidInput, NearestError, TimedOut
from nearest.remote import client

if TYPE_CHECKING:
    from google import genai

REQUIRES: Mapping[str, str] = {"google-genai": ">=3,<4"}
CACHED = True

TASKS: Mapping[str, Mapping[Kind, str]] = {
    "retrieval": {"document": "retrieval_document", "query": "retrieval_query"},
    **{task: {"document": task, "query": task} for task in ("semantic_similarity", "classification", "clustering")},
}
_TEXTS, _TOKENS = 100, 20_000


def load(
    model: str,
    *,
    dimensions: int | None = None,
    task: str = "retrieval",
    base_url: str | None = None,
    api_key_env: str | None = None,
    max_tokens: int | None = None,
    tokenizer: str | None = None,
    price: float | None = None,
    parallel: int = 4,
    rpm: int | None = None,
    tpm: int | None = None,
    timeout: float = 60.0,
) -> GeminiEmbedder:
    """The embedder of a model; no request is made yet.

    task: retrieval, semantic_similarity, classification or clustering. The others: see `openai.load`.
    Raises InvalidInput, UnsupportedError or MissingDependency.
    """
    client("google.genai", "gemini")
    if task not in TASKS:
        raise InvalidInput(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    kept = {
        "dimensions": dimensions, "task": task, "base_url": base_url,
        "api_key_env": api_key_env, "max_tokens": max_tokens, "tokenizer": tokenizer,
    }  # fmt: skip
    known = _registry.known("gemini", model)
    by_task = known.prefixes if known else {}
    return GeminiEmbedder(
        model, kept, Limits(_TEXTS, _TOKENS, parallel, rpm, tpm),
        dimensions=dimensions, max_tokens=max_tokens, price=price, tokenizer=tokenizer, base_url=base_url,
        timeout=timeout, api_key_env=api_key_env or ("" if base_url else "GEMINI_API_KEY"),
        settings={"task": task}, task=task,
        prefixes={kind: by_task[task] for kind, task in TASKS[task].items()} if by_task else None,
    )  # fmt: skip


class GeminiEmbedder(RemoteEmbedder):
    provider = "gemini"
    refuses_long = False

    def __init__(self, model: str, kept: Mapping[str, Any], limits: Limits, *, task: str, **others: Any) -> None:
        super().__init__(model, kept, limits, **others)
        self._tasks = TASKS[task]
        self._made: genai.Client | None = None

    def _client(self) -> genai.Client:
        with self._lock:
            if self._made is None:
                key = self._key()
                # One attempt: what is repeated, and when, is decided in `_batching`.
                http: dict[str, Any] = {"timeout": int(self._timeout * 1000), "retry_options": {"attempts": 1}}
                if self._base_url:
                    http["base_url"] = self._base_url
                self._made = client("google.genai", "gemini").Client(api_key=key, vertexai=False, http_options=http)
            return self._made

    def _request(self, texts: list[str], kind: Kind) -> Answer:
        from google.genai import types

        # One Content a text: of several strings newer models would make one vector.
        answer = self._client().models.embed_content(
            model=self.model,
            contents=[types.Content(parts=[types.Part(text=text)]) for text in texts],
            config=types.EmbedContentConfig(
                task_type=None if self._prefixes else self._tasks[kind].upper(), output_dimensionality=self._asked
            ),
        )
        found = answer.embeddings or []
        if len(found) != len(texts):  # they have no numbers: which are missing is not known
            raise ConnectionFailed(f"{self.name} answered {len(found)} vectors for {len(texts)} texts")
        vectors: list[Float32 | None] = [np.asarray(e.values, np.float32) if e.values else None for e in found]
        return Answer(vectors, getattr(answer.usage_metadata, "prompt_token_count", None))

    def _error(self, error: Exception) -> NearestError | None:
        from google.genai import errors

        if isinstance(error, errors.APIError):
            headers = dict(getattr(error.response, "headers", None) or {})
            if error.code == 400 and "API_KEY_INVALID" in str(error.details):
                return self._status(401, "")
            if (delay := _delay(error.details)) is not None:
                headers = {**headers, "retry-after": str(delay)}
            return self._status(int(error.code), error.message or str(error.status or ""), headers)
        # Its HTTP client is httpx in one version and httpx2 in the next; their errors have the same names.
        names = {each.__name__ for each in type(error).__mro__}
        if "TimeoutException" in names:
            return TimedOut(f"{self.name} did not answer within {self._timeout:g} s")
        if names & {"HTTPError", "TransportError"}:
            return ConnectionFailed(f"{self.name} could not be reached ({type(error).__name__})")
        if isinstance(error, ValueError | TypeError | AttributeError):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None


def _delay(details: Any) -> float | None:
    """Seconds, by the RetryInfo that Google puts into an error's body."""
    error = details.get("error", details) if isinstance(details, dict) else {}
    for item in error.get("details") or ():
        said = str(item.get("retryDelay", "")) if isinstance(item, dict) else ""
        if said.endswith("s"):
            try:
                return max(float(said[:-1]), 0.0)
            except ValueError:
                return None
    return None
