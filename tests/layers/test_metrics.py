"""Counts, histogram and snapshot."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest.contract import Dense, Query, Record, Schema, VectorSpec
from nearest.errors import ConnectionFailed, StorageError, Throttled
from nearest.layers.chaos import Chaos, Fault, script
from nearest.layers.metrics import BOUNDS, Counts, Meter, Metrics
from nearest.stores.memory import MemoryStore
from tests.fakes import HashEmbedder, LineChunker

SCHEMA = Schema(vectors={"dense": VectorSpec(2)})


def records(count: int) -> list[Record]:
    return [Record(str(i), {"dense": [1, i]}) for i in range(count)]


def test_calls_and_records() -> None:
    meter = Meter()
    store = Metrics(MemoryStore.create(SCHEMA), meter)
    assert meter.snapshot() == {}
    store.upsert(records(5))
    store.delete(["0", "unknown"])
    store.search_many([Query(Dense([1, 2]), k=3), Query(Dense([1, 2]), k=2)])
    store.search(Query(Dense([1, 2]), k=1))
    store.get(["1", "2", "unknown"])
    store.scan(limit=3)
    assert store.count() == 4
    store.flush()
    told = {name: (counts.calls, counts.records) for name, counts in meter.snapshot().items()}
    assert told == {
        "upsert": (1, 5), "delete": (1, 2), "search": (2, 6), "get": (1, 2), "scan": (1, 3), "count": (1, 4),
        "flush": (1, 0),
    }  # fmt: skip
    assert all(counts.errors == {} for counts in meter.snapshot().values())


def test_errors_by_kind() -> None:
    meter = Meter()
    plan = script([Fault("throttle"), Fault("before"), Fault("throttle"), None])
    store = Metrics(Chaos(MemoryStore.create(SCHEMA), plan), meter)
    for kind in (Throttled, ConnectionFailed, Throttled):
        with pytest.raises(kind):
            store.upsert(records(1))
    store.upsert(records(1))
    counts = meter.snapshot()["upsert"]
    assert (counts.calls, counts.records, counts.errors) == (4, 1, {"Throttled": 2, "ConnectionFailed": 1})
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.count()
    assert meter.snapshot()["count"].errors == {"StorageError": 1}


def test_seconds() -> None:
    now = iter([0.0, 0.0005, 1.0, 1.001, 2.0, 2.002, 3.0, 103.0])
    meter = Meter()
    store = Metrics(MemoryStore.create(SCHEMA), meter, clock=lambda: next(now))
    for _ in range(4):
        store.count()
    counts = meter.snapshot()["count"]
    assert counts.seconds == pytest.approx(100.0035)
    assert counts.buckets[-1] == 1
    assert sum(counts.buckets) == counts.calls == 4
    assert counts.buckets[:2] == [1, 2] or counts.buckets[:2] == [2, 1]  # 1.001 - 1.0 lies on the bound, or beside it


def test_quantiles_lie_in_their_bucket() -> None:
    counts = Counts()
    assert counts.quantile(0.5) is None
    counts = Counts(calls=100, buckets=[50, 0, 40, *[0] * (len(BOUNDS) - 3), 10])
    assert counts.quantile(0.25) == pytest.approx(0.0005)
    assert counts.quantile(0.5) == pytest.approx(0.001)
    assert counts.quantile(0.7) == pytest.approx(0.00375)
    assert counts.quantile(0.99) == BOUNDS[-1]


def test_a_snapshot_is_a_copy_and_json() -> None:
    meter = Meter()
    meter.add("count", 0.01, 0, "TimedOut")
    snapshot = meter.snapshot()
    snapshot["count"].errors["TimedOut"] = 99
    snapshot["count"].buckets[0] = 99
    assert meter.snapshot()["count"].errors == {"TimedOut": 1}
    assert sum(meter.snapshot()["count"].buckets) == 1
    told: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(meter.snapshot()["count"])))
    assert told["errors"] == {"TimedOut": 1}


def test_threads_lose_nothing() -> None:
    meter = Meter()

    def work() -> None:
        for _ in range(2000):
            meter.add("get", 0.001, 2, "TimedOut")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = meter.snapshot()["get"]
    assert (counts.calls, counts.records, counts.errors, sum(counts.buckets)) == (8000, 16000, {"TimedOut": 8000}, 8000)


def test_a_meter_is_given_to_open_and_to_connect(tmp_path: Path) -> None:
    meter = nearest.Meter()
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker(), meter=meter) as kb:
        kb.add([nearest.Document("a", "one line\nanother line\n")])
        kb.search("line")
    counts = meter.snapshot()
    assert (counts["upsert"].records, counts["search"].records) == (2, 2)
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker(), meter=meter) as kb:
        kb.search("line")
    assert meter.snapshot()["search"].calls == 2 * counts["search"].calls
    with nearest.connect("memory:", SCHEMA, meter=(other := nearest.Meter())) as store:
        store.upsert(records(5))
    assert other.snapshot()["upsert"].records == 5
