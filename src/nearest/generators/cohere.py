"""Cohere's models: `cohere:command-a-03-2025`. The key is read from $CO_API_KEY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearest.contract import Message
from nearest.errors import ConnectionFailed, NearestError
from nearest.generators._remote import Options, RemoteGenerator, Stopped, Tokens, stopped
from nearest.remote import client

if TYPE_CHECKING:
    import cohere

REQUIRES: Mapping[str, str] = {"cohere": ">=7,<8"}


def load(
    model: str,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    temperature: float | None = None,
    input_price: float | None = None,
    output_price: float | None = None,
    timeout: float = 60.0,
    patience: float = 60.0,
) -> CohereGenerator:
    """The generator of a model; no request is made yet. The options: see `openai.load`."""
    client("cohere", "cohere")
    options = Options(base_url, api_key_env, temperature, input_price, output_price, timeout, patience)
    return CohereGenerator("cohere", model, options, key_env="CO_API_KEY")


class CohereGenerator(RemoteGenerator):
    _made: cohere.ClientV2 | None = None

    def _client(self) -> cohere.ClientV2:
        with self._lock:
            if self._made is None:
                address = {"base_url": self.options.base_url} if self.options.base_url else {}
                self._made = client("cohere", "cohere").ClientV2(self._key(), timeout=self.options.timeout, **address)
            return self._made

    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        some: Any = {} if self.options.temperature is None else {"temperature": self.options.temperature}
        sent: Any = [{"role": message.role, "content": message.text} for message in messages]
        finished = False
        for event in self._client().chat_stream(
            model=self.model, messages=sent, max_tokens=max_tokens, request_options={"max_retries": 0}, **some
        ):
            if event.type == "content-delta":
                content = event.delta and event.delta.message and event.delta.message.content
                if content and content.text:
                    yield content.text
            elif event.type == "message-end" and event.delta:
                finished = True
                if event.delta.finish_reason == "ERROR":
                    raise ConnectionFailed(f"{self.name} failed in the middle of its answer")
                if why := stopped(event.delta.finish_reason, ("COMPLETE", "STOP_SEQUENCE"), ("MAX_TOKENS",)):
                    yield why
                used = event.delta.usage and event.delta.usage.billed_units
                if used:
                    yield Tokens(int(used.input_tokens or 0), int(used.output_tokens or 0))
        if not finished:
            raise ConnectionFailed(f"{self.name} broke off in the middle of its answer")

    def _error(self, error: Exception) -> NearestError | None:
        from cohere.core.api_error import ApiError

        if isinstance(error, ApiError) and error.status_code and error.status_code >= 300:
            body = error.body
            said = body.get("message", body) if isinstance(body, dict) else body
            return self._status(error.status_code, str(said or ""), error.headers)
        if isinstance(error, ApiError) or "ParsingError" in str(type(error)):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None
