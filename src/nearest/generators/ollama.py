"""Models that Ollama serves, on this machine by default: `ollama:llama3.2`, `ollama:qwen3?context=16384`.

By its own API: over the one that is like OpenAI's, Ollama reads 4,096 tokens and leaves out the beginning of a longer
prompt without a word, which is where the instructions are. Here the room is asked for with each request, and a
prompt that surely does not fit is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearest.contract import Message
from nearest.errors import ConnectionFailed, InvalidInput, ModelError, NearestError
from nearest.generators._remote import Options, RemoteGenerator, Stopped, Tokens, stopped
from nearest.remote import client

if TYPE_CHECKING:
    import httpx

REQUIRES: Mapping[str, str] = {"httpx": ">=0.27,<1"}

_LOCAL = "http://localhost:11434"
_BYTES_A_TOKEN = 6  # at most, in running text: for telling what surely does not fit


def load(
    model: str,
    *,
    base_url: str = _LOCAL,
    api_key_env: str | None = None,
    temperature: float | None = None,
    context: int = 8192,
    timeout: float = 300.0,
    patience: float = 60.0,
) -> OllamaGenerator:
    """The generator of a model; no request is made yet.

    context: tokens of prompt and answer together. timeout: seconds, until the first piece as well, which a model that
    has to be loaded takes. The others: see `openai.load`. Raises InvalidInput or MissingDependency.
    """
    client("httpx", "ollama")
    if not isinstance(context, int) or context < 512:
        raise InvalidInput(f"context must be at least 512 tokens, got {context!r}")
    options = Options(base_url.rstrip("/"), api_key_env, temperature, 0.0, 0.0, timeout, patience)
    generator = OllamaGenerator("ollama", model, options, key_env="")
    generator.context = context
    return generator


class OllamaGenerator(RemoteGenerator):
    context = 8192
    _made: httpx.Client | None = None

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._made is None:
                headers = {"Authorization": f"Bearer {self._key()}"} if self._key_env else {}
                self._made = client("httpx", "ollama").Client(
                    base_url=self.options.base_url, timeout=self.options.timeout, headers=headers
                )
            return self._made

    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        least = sum(len(message.text.encode()) for message in messages) // _BYTES_A_TOKEN + max_tokens
        if least > self.context:
            raise ModelError(
                f"the prompt and its answer are at least {least} tokens, and {self.name} has room for {self.context}; "
                f"give it more (?context={2 * self.context}), or a smaller budget"
            )
        how: dict[str, Any] = {"num_ctx": self.context, "num_predict": max_tokens}
        if self.options.temperature is not None:
            how["temperature"] = self.options.temperature
        turns = [{"role": message.role, "content": message.text} for message in messages]
        body = {"model": self.model, "messages": turns, "stream": True, "options": how}
        finished = False
        with self._client().stream("POST", "/api/chat", json=body) as response:
            if response.status_code >= 300:
                raise self._status(response.status_code, _said(response.read()), dict(response.headers))
            for line in response.iter_lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                if "error" in event:
                    raise ConnectionFailed(f"{self.name} failed: {str(event['error'])[:300]}")
                yield event["message"]["content"]
                if event.get("done"):
                    finished = True
                    if why := stopped(event.get("done_reason"), ("stop",), ("length",)):
                        yield why
                    yield Tokens(int(event.get("prompt_eval_count", 0)), int(event.get("eval_count", 0)))
        if not finished:
            raise ConnectionFailed(f"{self.name} broke off in the middle of its answer")

    def _error(self, error: Exception) -> NearestError | None:
        return None  # httpx's errors are known to all


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
