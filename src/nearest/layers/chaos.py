"""Fault injection, for tests and for trying out how an application bears a bad database.

Chaos(store, script([None, Fault("throttle", seconds=2), Fault("after")]))
Chaos(store, by_chance({Fault("before"): 0.1, Fault("delay", seconds=0.5): 0.01}, seed=7))
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from nearest.contract import Record, Store
from nearest.errors import BatchFailed, ConnectionFailed, NearestError, Throttled
from nearest.layers._wrapper import Item, Layer, Operation, P, T, id_of


@dataclass(frozen=True, slots=True)
class Fault:
    """before: fails, nothing is done. after: it is done, but its acknowledgement is lost. partial: of an upsert
    or a delete a random part is done and the rest fails (BatchFailed); for other calls it is `before`. delay:
    done after `seconds`. throttle: refused, with `seconds` as retry_after.
    """

    kind: Literal["before", "after", "partial", "delay", "throttle"]
    seconds: float = 0.0


Plan = Callable[[Operation], Fault | None]
"""Asked at every call for its fault, by one thread at a time."""


def script(faults: Iterable[Fault | None]) -> Plan:
    """One fault a call, in order; none after the last."""
    each = iter(faults)
    return lambda operation: next(each, None)


def by_chance(chances: Mapping[Fault, float], seed: int) -> Plan:
    """Each fault with its probability; together at most 1."""
    source = random.Random(seed)
    choices, weights = [*chances, None], [*chances.values(), 1 - sum(chances.values())]
    return lambda operation: source.choices(choices, weights)[0]


class Chaos(Layer):
    """A store that fails as planned. seed: of the records that a partial failure hits."""

    def __init__(self, inner: Store, plan: Plan, *, seed: int = 0, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(inner)
        self._plan = plan
        self._random = random.Random(seed)
        self._sleep = sleep
        self._mutex = threading.Lock()

    def _call(self, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._with(self._fault(operation), operation, verb, *args, **kwargs)

    def _upsert(self, records: list[Record]) -> None:
        self._batch("upsert", self.inner._upsert, records)

    def _delete(self, ids: list[str]) -> None:
        self._batch("delete", self.inner._delete, ids)

    def _batch(self, operation: Operation, verb: Callable[[list[Item]], None], items: list[Item]) -> None:
        fault = self._fault(operation)
        if fault is None or fault.kind != "partial":
            self._with(fault, operation, verb, items)
            return
        with self._mutex:
            failed: dict[str, NearestError] = {
                id_of(item): _lost(operation, "before")
                for item in self._random.sample(items, self._random.randint(1, len(items)))
            }
        if done := [item for item in items if id_of(item) not in failed]:
            verb(done)
        raise BatchFailed.of(failed, len(items))

    def _fault(self, operation: Operation) -> Fault | None:
        with self._mutex:
            return self._plan(operation)

    def _with(
        self, fault: Fault | None, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        match fault:
            case Fault("before" | "partial"):
                raise _lost(operation, "before")
            case Fault("throttle", seconds):
                raise Throttled(f"{operation}: chaos refused it", retry_after=seconds)
            case Fault("delay", seconds):
                self._sleep(seconds)
        result = verb(*args, **kwargs)
        if fault is not None and fault.kind == "after":
            raise _lost(operation, "after")
        return result


def _lost(operation: Operation, when: str) -> ConnectionFailed:
    return ConnectionFailed(f"{operation}: chaos cut the connection {when} it was done", when=when)
