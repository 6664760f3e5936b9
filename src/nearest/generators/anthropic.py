"""Anthropic's models: `anthropic:claude-haiku-4-5`. The key is read from $ANTHROPIC_API_KEY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearest.contract import Message
from nearest.errors import ConnectionFailed, NearestError
from nearest.generators._remote import Options, RemoteGenerator, Stopped, Tokens, split, stopped
from nearest.remote import client

if TYPE_CHECKING:
    import anthropic

REQUIRES: Mapping[str, str] = {"anthropic": ">=2,<3"}


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
) -> AnthropicGenerator:
    """The generator of a model; no request is made yet. The options: see `openai.load`."""
    client("anthropic", "anthropic")
    options = Options(base_url, api_key_env, temperature, input_price, output_price, timeout, patience)
    return AnthropicGenerator("anthropic", model, options, key_env="ANTHROPIC_API_KEY")


class AnthropicGenerator(RemoteGenerator):
    _made: anthropic.Anthropic | None = None

    def _client(self) -> anthropic.Anthropic:
        with self._lock:
            if self._made is None:
                self._made = client("anthropic", "anthropic").Anthropic(
                    api_key=self._key(), base_url=self.options.base_url, timeout=self.options.timeout, max_retries=0
                )
            return self._made

    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        system, turns = split(messages)
        # In the body, since the client's newer versions have no parameter for it.
        some: Any = None if self.options.temperature is None else {"temperature": self.options.temperature}
        sent: list[Any] = [{"role": message.role, "content": message.text} for message in turns]
        given, written, finished = 0, 0, False
        with self._client().messages.create(
            model=self.model, max_tokens=max_tokens, system=system, messages=sent, stream=True, extra_body=some
        ) as events:
            for event in events:
                if event.type == "message_start":
                    used = event.message.usage
                    given = used.input_tokens + (used.cache_read_input_tokens or 0)
                    written = used.output_tokens
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield event.delta.text
                elif event.type == "message_delta":
                    written = event.usage.output_tokens
                    if why := stopped(event.delta.stop_reason, ("end_turn", "stop_sequence"), ("max_tokens",)):
                        yield why
                elif event.type == "message_stop":
                    finished = True
        if not finished:
            raise ConnectionFailed(f"{self.name} broke off in the middle of its answer")
        yield Tokens(given, written)

    def _error(self, error: Exception) -> NearestError | None:
        import anthropic

        if isinstance(error, anthropic.APITimeoutError):
            return self._late()
        if isinstance(error, anthropic.APIStatusError):
            # An error among the events of a stream has the stream's own status, 200; overloaded ones are 529.
            code = error.status_code if error.status_code >= 400 else 529
            return self._status(code, error.message, dict(error.response.headers))
        if isinstance(error, anthropic.APIConnectionError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error.__cause__ or error).__name__})")
        if isinstance(error, anthropic.AnthropicError):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None
