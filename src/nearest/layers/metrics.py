"""What a store is asked and how it answers, counted in memory: calls, errors, records, seconds.

A `Meter` is given in from outside, so that whoever shows the numbers (an exporter, `explain`) need not
find the layer. Inside `Retry` it counts what the database was asked, outside what callers got.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nearest.contract import Page, Store
from nearest.errors import NearestError
from nearest.layers._wrapper import Layer, Operation, P, T

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram's buckets, seconds; the last bucket has none."""


@dataclass(slots=True)
class Counts:
    """Of one operation since the meter was made; JSON-able by `dataclasses.asdict`.

    calls: ended, failed ones included. errors: by kind. records: written, or given back (hits and counted
    ones too). seconds: their sum. buckets: calls by duration, one more than `BOUNDS`, not cumulative.
    """

    calls: int = 0
    records: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def quantile(self, q: float) -> float | None:
        """Seconds that a share q of the calls did not exceed, within its bucket's bounds; None without calls.

        Linear within a bucket, like Prometheus' `histogram_quantile`; over the last bound it is that bound.
        """
        rank, below = q * self.calls, 0
        for i, here in enumerate(self.buckets[:-1]):
            if here and below + here >= rank:
                low = BOUNDS[i - 1] if i else 0.0
                return low + (BOUNDS[i] - low) * max(rank - below, 0.0) / here
            below += here
        return BOUNDS[-1] if self.calls else None


class Meter:
    """The counts of one store, or of several together. Safe for use by several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: dict[Operation, Counts] = {}

    def snapshot(self) -> dict[Operation, Counts]:
        """A copy of the counts, by operation; those that were never called are left out."""
        with self._mutex:
            return {
                name: replace(counts, errors=dict(counts.errors), buckets=list(counts.buckets))
                for name, counts in self._counts.items()
            }

    def add(self, operation: Operation, seconds: float, records: int, error: str | None) -> None:
        with self._mutex:
            counts = self._counts.get(operation)
            if counts is None:
                counts = self._counts[operation] = Counts()
            counts.calls += 1
            counts.records += records
            counts.seconds += seconds
            counts.buckets[bisect_left(BOUNDS, seconds)] += 1
            if error is not None:
                counts.errors[error] = counts.errors.get(error, 0) + 1


class Metrics(Layer):
    def __init__(self, inner: Store, meter: Meter, *, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(inner)
        self._meter = meter
        self._clock = clock

    def _call(self, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        started = self._clock()
        try:
            result = verb(*args, **kwargs)
        except BaseException as error:
            kind = error.kind if isinstance(error, NearestError) else type(error).__name__
            self._meter.add(operation, self._clock() - started, 0, kind)
            raise
        self._meter.add(operation, self._clock() - started, _records(operation, args, result), None)
        return result


def _records(operation: Operation, args: tuple[Any, ...], result: Any) -> int:
    match operation:
        case "upsert" | "delete":
            return len(args[0])
        case "get":
            return len(result)
        case "count":
            return int(result)
        case "scan":
            page: Page = result
            return len(page.records)
        case "search":
            return sum(len(hits) for hits in result)
    return 0
