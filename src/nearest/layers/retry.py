"""Retries: repeats what can succeed later, with growing random pauses, until it does or time is up.

Every call of a store is safe to repeat, so all are; only errors that say `retryable` are met this way. The
pause is drawn evenly between zero and a bound that doubles ("full jitter", Brooker, 2015), so that many
clients do not come back at once. Written here rather than with tenacity, since a `BatchFailed` changes
what is to be repeated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from nearest.contract import Record, Store
from nearest.errors import BatchFailed, NearestError
from nearest.layers._wrapper import Item, Layer, Operation, P, T, id_of


class Retry(Layer):
    """At most `attempts` calls for one, none begun after `deadline` seconds.

    base, longest: seconds of the first pause's bound, and of any. What is raised at the end is the last error,
    with `context["attempts"]`; for a batch of which something is settled (written, or refused for good) it is
    a BatchFailed of all records that are not written.
    """

    def __init__(
        self,
        inner: Store,
        *,
        attempts: int = 6,
        deadline: float = 60.0,
        base: float = 0.1,
        longest: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        super().__init__(inner)
        self._attempts = attempts
        self._deadline = deadline
        self._base = base
        self._longest = longest
        self._sleep = sleep
        self._clock = clock
        self._random = random.Random(seed)

    def _call(self, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        budget = _Budget(self)
        while True:
            try:
                return verb(*args, **kwargs)
            except NearestError as error:
                if not budget.pause(error):
                    raise

    def _upsert(self, records: list[Record]) -> None:
        self._batch(self.inner._upsert, records)

    def _delete(self, ids: list[str]) -> None:
        self._batch(self.inner._delete, ids)

    def _batch(self, verb: Callable[[list[Item]], None], items: list[Item]) -> None:
        budget = _Budget(self)
        refused: dict[str, NearestError] = {}  # for good
        left = items
        while left:
            try:
                verb(left)
                left = []
            except NearestError as error:
                again = budget.pause(error)
                if isinstance(error, BatchFailed):
                    failed = error.failed
                elif again:
                    continue
                elif len(left) == len(items):  # nothing is settled: the error is about the whole call
                    raise
                else:
                    failed = {id_of(item): error for item in left}
                refused |= {i: e for i, e in failed.items() if not (again and e.retryable)}
                left = [item for item in left if id_of(item) in failed and id_of(item) not in refused]
        if refused:
            in_order = {i: refused[i] for i in map(id_of, items) if i in refused}
            raise BatchFailed.of(in_order, len(items), attempts=budget.attempt)


class _Budget:
    """The attempts and the time of one call."""

    def __init__(self, settings: Retry) -> None:
        self.settings = settings
        self.attempt = 1
        self.ends = settings._clock() + settings._deadline

    def pause(self, error: NearestError) -> bool:
        """Sleep before the next attempt; False if there is to be none."""
        error.context["attempts"] = self.attempt
        given = self.settings
        jitter = given._random.uniform(0, min(given._base * 2 ** (self.attempt - 1), given._longest))
        # On top of what the database asked for, or all its clients would return at that moment.
        seconds = _retry_after(error) + jitter
        if not error.retryable or self.attempt >= given._attempts or given._clock() + seconds > self.ends:
            return False
        given._sleep(seconds)
        self.attempt += 1
        return True


def _retry_after(error: NearestError) -> float:
    """Seconds that the database asked for; of a batch the longest."""
    errors = [error, *(error.failed.values() if isinstance(error, BatchFailed) else ())]
    return max(float(each.context.get("retry_after") or 0) for each in errors)
