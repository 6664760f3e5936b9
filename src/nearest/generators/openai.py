"""OpenAI's models, and any server that speaks its chat API: vLLM, llama.cpp, LM Studio, text-generation-inference.

    openai:gpt-4.1-mini
    openai:Qwen/Qwen3-8B?base_url=http://localhost:8000/v1

OpenAI's key is read from $OPENAI_API_KEY. A server named by `base_url` gets no key unless `api_key_env` names
the variable that holds one: a key must not go to whoever is at an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearest.contract import Message
from nearest.errors import AccessDenied, ConnectionFailed, NearestError
from nearest.generators._remote import Options, RemoteGenerator, Stopped, Tokens, stopped
from nearest.remote import client

if TYPE_CHECKING:
    import openai

REQUIRES: Mapping[str, str] = {"openai": ">=3,<4"}


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
) -> OpenAIGenerator:
    """The generator of a model; no request is made yet.

    base_url: a server of one's own. api_key_env: the environment variable with the key. temperature: the model's own
    by default (some refuse others). input_price, output_price: dollars a million tokens, where the list's are not
    yours. timeout: seconds to connect, and between two pieces. patience: seconds that all attempts may take until the
    last one begins. Raises InvalidInput or MissingDependency.
    """
    client("openai", "openai")
    options = Options(base_url, api_key_env, temperature, input_price, output_price, timeout, patience)
    return OpenAIGenerator("openai", model, options, key_env="OPENAI_API_KEY")


class OpenAIGenerator(RemoteGenerator):
    _made: openai.OpenAI | None = None

    def _client(self) -> openai.OpenAI:
        with self._lock:
            if self._made is None:
                self._made = client("openai", "openai").OpenAI(
                    api_key=self._key(), base_url=self.options.base_url, timeout=self.options.timeout, max_retries=0
                )
            return self._made

    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        # OpenAI's reasoning models refuse max_tokens, and most other servers know no other name.
        limit: Any = {"max_tokens" if self.options.base_url else "max_completion_tokens": max_tokens}
        if self.options.temperature is not None:
            limit["temperature"] = self.options.temperature
        turns: list[Any] = [{"role": message.role, "content": message.text} for message in messages]
        with self._client().chat.completions.create(
            model=self.model, messages=turns, stream=True, stream_options={"include_usage": True}, **limit
        ) as events:
            finished = False
            for event in events:
                for choice in event.choices:
                    if choice.delta and choice.delta.content:
                        yield choice.delta.content
                    if choice.finish_reason is not None:
                        finished = True
                        if why := stopped(choice.finish_reason, ("stop", "eos_token", "stop_sequence"), ("length",)):
                            yield why
                if event.usage is not None:
                    yield Tokens(event.usage.prompt_tokens, event.usage.completion_tokens)
            if not finished:
                raise ConnectionFailed(f"{self.name} broke off in the middle of its answer")

    def _error(self, error: Exception) -> NearestError | None:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return self._late()
        if isinstance(error, openai.APIStatusError):
            if error.code == "insufficient_quota":
                return AccessDenied(f"{self.name}: the account has no credit left; see its billing page")
            return self._status(error.status_code, error.message, dict(error.response.headers))
        if isinstance(error, openai.APIConnectionError):
            return ConnectionFailed(f"{self.name} could not be reached ({type(error.__cause__ or error).__name__})")
        if isinstance(error, openai.APIError):  # an error among the events of a stream
            return ConnectionFailed(f"{self.name} failed: {str(error.message)[:300]}")
        if isinstance(error, openai.OpenAIError):
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({type(error).__name__})")
        return None
