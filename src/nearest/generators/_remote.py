"""What generators behind an API share: attempts, prices, and how what a client raises becomes our error.

A provider's file says how one request is made (`_request`) and what its client raises means (`_error`). Clients
make one attempt each: what is repeated, and when, is decided here.
"""

from __future__ import annotations

import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nearest import remote
from nearest.contract import Generator, Message, Spent
from nearest.errors import ConnectionFailed, InvalidInput, NearestError, TimedOut
from nearest.generators._prices import listed

_ATTEMPTS = 4
_SHOWN = 300  # characters of a message
_PAUSE = 0.5  # seconds of the first pause's bound, which doubles


class Tokens(NamedTuple):
    """What a provider counted for one request, reasoning included."""

    input: int
    output: int


class Stopped(str):
    """The provider's word for why its text ended before it was complete; MAX_TOKENS for reaching the limit."""


MAX_TOKENS = Stopped("max_tokens")


class Options(NamedTuple):
    """Those that all providers have. See `openai.load`."""

    base_url: str | None = None
    api_key_env: str | None = None
    temperature: float | None = None
    input_price: float | None = None
    output_price: float | None = None
    timeout: float = 60.0
    patience: float = 60.0


class RemoteGenerator(Generator):
    """One model of one provider. Safe to call from several threads; no request is made before it is needed."""

    def __init__(
        self,
        provider: str,
        model: str,
        options: Options,
        *,
        key_env: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """key_env: where the provider's own key is. The price is the caller's, or else the list's."""
        for name, limit in (("timeout", options.timeout), ("patience", options.patience)):
            if not isinstance(limit, int | float) or not limit > 0:
                raise InvalidInput(f"{name} must be above 0 (seconds), got {limit!r}")
        if options.base_url is not None:
            remote.check_url(options.base_url)
        self.name = f"{provider}:{model}"
        self.model = model
        self.options = options
        self.sleep = sleep
        self.price = remote.prices(options.input_price, options.output_price)
        if self.price is None and options.base_url is None:
            self.price = listed(provider, model)
        # A key must not go to whoever is at an address.
        self._key_env = options.api_key_env or ("" if options.base_url else key_env)
        self._lock = threading.Lock()

    @abstractmethod
    def _request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Tokens | Stopped]:
        """One request: pieces of text, the tokens once they are known (the last say counts), and Stopped if it was."""

    @abstractmethod
    def _error(self, error: Exception) -> NearestError | None:
        """What the client raised, as our error; None if it is none of its kinds."""

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str | Spent]:
        """See the contract. Repeated after a pause, and after what Retry-After asks for, until text has come."""
        ends = time.monotonic() + self.options.patience
        for attempt in range(1, _ATTEMPTS + 1):
            begun = False
            tokens: Tokens | None = None
            stopped: str | None = None
            try:
                for piece in self._request(messages, max_tokens):
                    if isinstance(piece, Tokens):
                        tokens = piece
                    elif isinstance(piece, Stopped):
                        stopped = str(piece)
                    elif piece:
                        begun = True
                        yield piece
            except Exception as raised:
                error = raised if isinstance(raised, NearestError) else self._known(raised)
                if error is None:
                    raise
                error.context["attempts"] = attempt
                pause = float(error.context.get("retry_after") or 0) + random.uniform(0, _PAUSE * 2 ** (attempt - 1))
                late = time.monotonic() + pause > ends
                if begun or not error.retryable or attempt == _ATTEMPTS or late:
                    raise error from None  # the client's own message may hold a part of the key
            else:
                yield self._spent(attempt, tokens, stopped)
                return
            self.sleep(pause)

    def _spent(self, requests: int, tokens: Tokens | None, stopped: str | None) -> Spent:
        """Money is not known where the price or the tokens are not."""
        if tokens is None:
            return Spent(requests, dollars=None, stopped=stopped)
        return Spent(requests, tokens.input, tokens.output, remote.cost(tokens, self.price), stopped)

    def _known(self, error: Exception) -> NearestError | None:
        known = self._error(error)
        if known is not None:
            return known
        # Clients let errors of their HTTP library through, which is httpx in one version and httpx2 in the next, with
        # errors of the same names.
        names = {each.__name__ for each in type(error).__mro__}
        if "TimeoutException" in names:
            return self._late()
        if names & {"HTTPError", "TransportError"}:
            return ConnectionFailed(f"{self.name} could not be reached, or broke off ({type(error).__name__})")
        if isinstance(error, ValueError | TypeError | AttributeError | KeyError | IndexError):
            said = f"{type(error).__name__}: {error}"[:_SHOWN]
            return ConnectionFailed(f"{self.name} gave an answer that cannot be read ({said})")
        return None

    # --- what the providers' files use ---------------------------------------------------------------

    def _key(self) -> str:
        return remote.key(self.name, self._key_env)

    def _status(self, code: int, message: str, headers: Mapping[str, Any] | None = None) -> NearestError:
        return remote.status(self.name, code, message, headers or {}, self._key_env)

    def _late(self) -> TimedOut:
        return TimedOut(f"{self.name} did not answer within {self.options.timeout:g} s")


def stopped(reason: object, complete: Collection[str], limit: Collection[str]) -> Stopped | None:
    """A provider's word for why it ended: None if its text is complete, MAX_TOKENS if it reached its limit."""
    said = str(getattr(reason, "value", reason))  # some clients make enumerations of known words
    if reason is None or said in complete:
        return None
    return MAX_TOKENS if said in limit else Stopped(said.lower()[:_SHOWN])


def split(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The instructions, and the turns, for APIs that keep them apart."""
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    return system, [message for message in messages if message.role != "system"]
