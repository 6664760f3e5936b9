"""Many texts in few requests: batches by count and tokens, several at once, at the provider's pace.

What is refused is narrowed down to the texts that it is about; what failed for now is asked again, with
growing random pauses ("full jitter", Brooker, 2015) and not before the provider said; what was answered is
kept and never asked again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nearest.contract import Float32
from nearest.errors import InvalidInput, ModelError, NearestError, UnsupportedError


@dataclass(frozen=True, slots=True)
class Limits:
    """texts, tokens: of one request at most. parallel: requests at once. rpm, tpm: requests and tokens a minute,
    as the account has them; None: as fast as the provider lets us. attempts: of a request at most; none is
    begun after `deadline` seconds."""

    texts: int
    tokens: int
    parallel: int = 4
    rpm: int | None = None
    tpm: int | None = None
    attempts: int = 8
    deadline: float = 300.0

    def __post_init__(self) -> None:
        for name in ("texts", "tokens", "parallel", "rpm", "tpm", "attempts"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidInput(f"{name} must be an integer of at least 1, got {value!r}")


class Pace:
    """Requests and tokens a minute, and the pauses that a provider asks for; shared by all threads.

    Two token buckets, full at the start with a tenth of a minute's worth.
    """

    def __init__(
        self,
        rpm: int | None,
        tpm: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rates = [rate / 60 for rate in (rpm, tpm) if rate]
        self._which = [which for which, rate in enumerate((rpm, tpm)) if rate]
        self._level = [max(6 * rate, 1.0) for rate in self._rates]
        self._clock, self._sleep = clock, sleep
        self._at = clock()
        self._not_before = self._at
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may be sent."""
        with self._lock:
            now = self._clock()
            pause = self._not_before - now
            for i, rate in enumerate(self._rates):
                full = max(6 * rate, 1.0)
                cost = (1, tokens)[self._which[i]]
                # A debt is allowed, and waited for: a request may be larger than a bucket.
                self._level[i] = min(self._level[i] + (now - self._at) * rate, full) - cost
                pause = max(pause, -self._level[i] / rate)
            self._at = now
        if pause > 0:
            self._sleep(pause)

    def hold(self, seconds: float) -> None:
        """No request before so many seconds from now: the provider said so."""
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)


@dataclass(slots=True)
class Answer:
    """What a provider answered: a vector for each text, None where it left one out; tokens, if it told."""

    vectors: list[Float32 | None]
    tokens: int | None = None


@dataclass(slots=True)
class Outcome:
    """Of some texts, by row: vectors, or why there is none."""

    vectors: dict[int, Float32] = field(default_factory=dict)
    failed: dict[int, NearestError] = field(default_factory=dict)


def batches(sizes: Sequence[int], limits: Limits) -> Iterator[list[int]]:
    """Numbers of texts in their order; one over `limits.tokens` goes alone. sizes: tokens of each text."""
    rows: list[int] = []
    tokens = 0
    for row, size in enumerate(sizes):
        if rows and (len(rows) == limits.texts or tokens + size > limits.tokens):
            yield rows
            rows, tokens = [], 0
        rows.append(row)
        tokens += size
    if rows:
        yield rows


class Sender:
    """Sends batches with `ask`, which takes texts and returns an Answer or raises one of our errors.

    Errors that say `retryable` are met with repetition; ModelError and InvalidInput are about texts, which are
    then asked for in halves; `healthy` tells whether the provider takes any text at all, or raises what keeps it from
    telling. All others end it.
    """

    def __init__(
        self,
        ask: Callable[[list[str]], Answer],
        limits: Limits,
        healthy: Callable[[], bool],
        *,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self._ask = ask
        self._limits = limits
        self._healthy = healthy
        self._pace = pace or Pace(limits.rpm, limits.tpm)
        self._sleep, self._clock = sleep, clock
        self._random = random.Random(seed)

    def send(self, texts: Sequence[str], sizes: Sequence[int]) -> Outcome:
        """Every text ends in `vectors` or `failed`. Raises what is about no text (a wrong key, say) if there
        is no vector yet; after that it is the error of each text that has none."""
        done = Outcome()
        every = list(batches(sizes, self._limits))
        stop = threading.Event()
        ends = self._clock() + self._limits.deadline

        def one(rows: list[int]) -> None:
            try:
                self._batch(rows, texts, sizes, done, ends, stop)
            except BaseException:
                stop.set()  # the others begin nothing more
                raise

        error: NearestError | None = None
        with ThreadPoolExecutor(min(self._limits.parallel, len(every)) or 1, "embed") as pool:
            for future in [pool.submit(one, rows) for rows in every]:
                try:
                    future.result()
                except NearestError as failure:
                    error = error or failure
                except BaseException:
                    stop.set()
                    raise
        if error is not None:
            if not done.vectors:
                raise error
            done.failed = {row: error for row in range(len(texts)) if row not in done.vectors}
        return done

    def _batch(
        self,
        rows: list[int],
        texts: Sequence[str],
        sizes: Sequence[int],
        done: Outcome,
        ends: float,
        stop: threading.Event,
    ) -> None:
        left, attempt = rows, 0
        while left and not stop.is_set():
            attempt += 1
            try:
                self._pace.wait(sum(sizes[row] for row in left))
                answer = self._ask([texts[row] for row in left])
            except (ModelError, InvalidInput) as error:
                if not self._healthy():
                    raise UnsupportedError(f"it takes no text at all: {error}") from None
                if len(left) == 1:
                    done.failed[left[0]] = error
                    return
                middle = len(left) // 2
                for half in (left[:middle], left[middle:]):
                    self._batch(half, texts, sizes, done, ends, stop)
                return
            except NearestError as error:
                if not error.retryable:
                    raise
                problem = error
            else:
                done.vectors.update({row: v for row, v in zip(left, answer.vectors, strict=True) if v is not None})
                before = len(left)
                left = [row for row in left if row not in done.vectors]
                attempt = attempt if len(left) == before else 0  # there is progress
                problem = ModelError("the provider left this text out of its answers")
            if left and not self._pause(problem, max(attempt, 1), ends):
                problem.context["attempts"] = attempt
                done.failed.update(dict.fromkeys(left, problem))
                return

    def _pause(self, problem: NearestError, attempt: int, ends: float) -> bool:
        """Wait before the next attempt; False if there is to be none."""
        asked = float(problem.context.get("retry_after") or 0)
        seconds = asked + self._random.uniform(0, min(0.5 * 2 ** (attempt - 1), 20.0))
        if attempt >= self._limits.attempts or self._clock() + seconds > ends:
            return False
        if asked:
            self._pace.hold(asked)  # the others wait as well
        self._sleep(seconds)
        return True
