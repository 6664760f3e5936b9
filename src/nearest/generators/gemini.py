"""Google's models over the Gemini API: `gemini:gemini-2.5-flash`. The key is read from $GEMINI_API_KEY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearest.contract import Message
from nearest.errors import ConnectionFailed, InvalidInput, NearestError
from nearest.generators._remote import Options, RemoteGenerator, Stopped, Tokens, split, stopped
from nearest.remote import client

if TYPE_CHECKING:
    from google import genai

REQUIRES: Mapping[str, str] = {"google-genai": ">=3,<4"}


def load(
    model: str,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    temperature: float | None = None,
    thinking: int | None = None,
    input_price: float | None = None,
    output_price: float | None = None,
    timeout: float = 60.0,
    patience: float = 60.0,
) -> GeminiGenerator:
    """The generator of a model; no request is made yet.

    thinking: tokens that the model may think, on top of those of the answer; its own measure by default, which
    then counts towards `max_tokens`. The others: see `openai.load`.
    """
    client("google.genai", "gemini")
    if thinking is not None and (not isinstance(thinking, int) or thinking < 0):
        raise InvalidInput(f"thinking must be a number of tokens, 0 for none, got {thinking!r}")
    options = Options(base_url, api_key_env, temperature, input_price, output_price, timeout, patience)
    generator = GeminiGenerator("gemini", model, options, key_env="GEMINI_API_KEY")
    generator.thinking = thinking
    return generator


class GeminiGenerator(RemoteGenerator):
    thinking: int | None = None
    _made: genai.Client | None = None

    def _client(self) -> genai.Client:
        with self._lock:
            if self._made is None:
                http: dict[str, Any] = {"timeout": int(self.options.timeout * 1000), "retry_options": {"attempts": 1}}
                if self.options.base_url:
                    http["base_url"] = self.options.base_url
                self._made = client("google.genai", "gemini").Client(
                    api_key=self._key(), vertexai=False, http_options=http
                )
            return self._made

    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        from google.genai import types

        system, turns = split(messages)
        config = types.GenerateContentConfig(
            system_instruction=system or None,
            max_output_tokens=max_tokens + (self.thinking or 0),
            temperature=self.options.temperature,
            thinking_config=None if self.thinking is None else types.ThinkingConfig(thinking_budget=self.thinking),
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        contents: list[Any] = [
            types.Content(role="model" if m.role == "assistant" else "user", parts=[types.Part(text=m.text)])
            for m in turns
        ]
        finished = False
        for event in self._client().models.generate_content_stream(model=self.model, contents=contents, config=config):
            for candidate in event.candidates or ():
                for part in (candidate.content.parts if candidate.content else None) or ():
                    if part.text and not part.thought:
                        yield part.text
                if candidate.finish_reason is not None:
                    finished = True
                    if why := stopped(candidate.finish_reason, ("STOP", "FINISH_REASON_UNSPECIFIED"), ("MAX_TOKENS",)):
                        yield why
            if event.prompt_feedback and event.prompt_feedback.block_reason:
                raise self._status(400, f"the prompt was blocked ({event.prompt_feedback.block_reason})")
            if (used := event.usage_metadata) is not None:
                written = (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
                yield Tokens(used.prompt_token_count or 0, written)
        if not finished:
            raise ConnectionFailed(f"{self.name} broke off in the middle of its answer")

    def _error(self, error: Exception) -> NearestError | None:
        from google.genai import errors

        if isinstance(error, errors.APIError):
            headers = dict(getattr(error.response, "headers", None) or {})
            if error.code == 400 and "API_KEY_INVALID" in str(error.details):
                return self._status(401, "")
            if (delay := _delay(error.details)) is not None:
                headers = {**headers, "retry-after": str(delay)}
            return self._status(int(error.code), error.message or str(error.status or ""), headers)
        return None


def _delay(details: Any) -> float | None:
    """Seconds, by the RetryInfo that Google puts into an error's body."""
    error = details.get("error", details) if isinstance(details, dict) else {}
    for item in error.get("details") or ():
        said = str(item.get("retryDelay", "")) if isinstance(item, dict) else ""
        try:
            return max(float(said.removesuffix("s")), 0.0)
        except ValueError:
            continue
    return None
