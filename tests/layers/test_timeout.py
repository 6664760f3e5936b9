"""Deadlines: met, missed, and what a call that was given up may still do."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearest.contract import Dense, Query, Record, Schema, VectorSpec
from nearest.errors import StorageError, TimedOut
from nearest.layers.retry import Retry
from nearest.layers.timeout import Timeout
from nearest.stores.memory import MemoryStore, _Collection

SCHEMA = Schema(vectors={"dense": VectorSpec(2)})
SHORT = 0.05


class Stuck(MemoryStore):
    """While `gate` is cleared calls hang; `entered` counts them, `left` is set when one has ended."""

    def __init__(self) -> None:
        super().__init__(_Collection(SCHEMA))
        self.gate = threading.Event()
        self.gate.set()
        self.entered = 0
        self.left = threading.Semaphore(0)

    def _hang(self, verb: Callable[..., Any], *args: Any) -> Any:
        gate = self.gate  # of now: a later call may be given another
        self.entered += 1
        gate.wait()
        try:
            return verb(*args)
        finally:
            self.left.release()

    def _upsert(self, records: list[Record]) -> None:
        self._hang(super()._upsert, records)

    def _delete(self, ids: list[str]) -> None:
        self._hang(super()._delete, ids)

    def _delete_where(self, where: Any) -> None:
        self._hang(super()._delete_where, where)

    def _count(self, where: Any) -> int:
        return int(self._hang(super()._count, where))

    def _search_many(self, queries: list[Query]) -> Any:
        return self._hang(super()._search_many, queries)

    def optimize(self) -> None:
        self._hang(lambda: None)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    store = Stuck()
    yield store
    store.gate.set()


def record(record_id: str, n: int = 0) -> Record:
    return Record(record_id, {"dense": [1, 2]}, {"n": n})


def test_every_call_has_a_deadline(stuck: Stuck) -> None:
    stuck.gate.clear()
    layer = Timeout(stuck, SHORT, maintenance=2 * SHORT)
    calls: list[Callable[[], Any]] = [
        lambda: layer.count(),
        lambda: layer.search(Query(Dense([1, 2]))),
        lambda: layer.upsert([record("a")]),
        lambda: layer.delete(["b"]),
        lambda: layer.optimize(),
    ]
    for call in calls:
        with pytest.raises(TimedOut, match=r"within 0\.\d+ s") as raised:
            call()
        assert raised.value.retryable
    assert raised.value.context == {"operation": "optimize", "seconds": 2 * SHORT}
    stuck.gate.set()
    for _ in calls:
        assert stuck.left.acquire(timeout=10)
    layer.close()


def test_results_errors_and_context_come_from_the_call() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    class Telling(MemoryStore):
        def stats(self) -> dict[str, Any]:
            return {"seen": variable.get(), "thread": threading.get_ident()}

        def flush(self) -> None:
            raise TimeoutError("the client's own")

    layer = Timeout(Telling(_Collection(SCHEMA)), 60.0)
    variable.set(7)
    told = layer.stats()
    assert told["seen"] == 7
    assert told["thread"] != threading.get_ident()
    with pytest.raises(TimeoutError, match="the client's own"):
        layer.flush()
    layer.close()
    with pytest.raises(StorageError):
        layer.count()


def test_threads_are_used_again(stuck: Stuck) -> None:
    before = set(threading.enumerate())
    layer = Timeout(stuck, 60.0)
    for _ in range(50):
        layer.count()
    workers = set(threading.enumerate()) - before
    assert 1 <= len(workers) <= 2
    layer.close()
    for worker in workers:
        worker.join(timeout=10)
    assert [t for t in workers if t.is_alive()] == []


def test_stuck_calls_take_no_more_threads_than_there_are(stuck: Stuck) -> None:
    stuck.gate.clear()
    layer = Timeout(stuck, SHORT, threads=2)
    for _ in range(4):
        with pytest.raises(TimedOut):
            layer.count()
    stuck.gate.set()
    for _ in range(2):
        assert stuck.left.acquire(timeout=10)
    assert Timeout(stuck, 60.0).count() == 0  # the two that never began were withdrawn
    assert stuck.entered == 3


def test_a_repetition_does_not_wait_for_the_call_that_hangs(stuck: Stuck) -> None:
    hanging = stuck.gate
    hanging.clear()

    def on(_: float) -> None:
        stuck.gate = threading.Event()
        stuck.gate.set()

    layer = Retry(Timeout(stuck, SHORT), sleep=on)
    layer.upsert([record("a", 1)])
    assert (stuck.entered, layer.get(["a"])[0].payload) == (2, {"n": 1})
    hanging.set()


@pytest.mark.parametrize("late", ["upsert", "delete", "delete_where"])
def test_a_late_call_undoes_nothing_that_was_acknowledged_after_it(stuck: Stuck, late: str) -> None:
    layer = Timeout(stuck, 10.0)
    layer.upsert([record("a", 1), record("b", 1)])
    assert stuck.left.acquire(timeout=10)
    hanging = stuck.gate
    hanging.clear()
    layer._seconds = SHORT
    writes: dict[str, Callable[[], None]] = {
        "upsert": lambda: layer.upsert([record("a", 2)]),
        "delete": lambda: layer.delete(["a"]),
        "delete_where": lambda: layer.delete_where({"n": {"$lt": 3}}),
    }
    with pytest.raises(TimedOut, match="no answer"):
        writes[late]()
    stuck.gate = threading.Event()
    stuck.gate.set()
    # While it hangs, the same records cannot be written, and others can.
    with pytest.raises(TimedOut, match="earlier write"):
        layer.upsert([record("c", 3), record("a", 3)])
    with pytest.raises(TimedOut, match="earlier write"):
        layer.delete_where({"n": 5})
    if late == "delete_where":
        with pytest.raises(TimedOut, match="earlier write"):
            layer.upsert([record("b", 3)])
    else:
        layer.upsert([record("b", 3)])
        assert layer.get(["b"])[0].payload == {"n": 3}
    # The late call ends in the middle of the wait.
    layer._seconds = 10.0
    threading.Timer(SHORT, hanging.set).start()
    layer.upsert([record("a", 4)])
    assert layer.get(["a"])[0].payload == {"n": 4}
    assert layer._abandoned == {}
    layer.close()


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    code = """
import threading
from nearest.contract import Schema
from nearest.errors import TimedOut
from nearest.layers.timeout import Timeout
from nearest.stores.memory import MemoryStore
class Stuck(MemoryStore):
    def _count(self, where):
        threading.Event().wait()
try:
    Timeout(Stuck.create(Schema(text="t")), 0.01).count()
except TimedOut:
    print("timed out")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "timed out\n"
