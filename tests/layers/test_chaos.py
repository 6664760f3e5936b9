"""Each fault does what it says, by script and by chance."""

from __future__ import annotations

from collections import Counter

import pytest

from nearest.contract import Record, Schema, VectorSpec
from nearest.errors import BatchFailed, ConnectionFailed, Throttled
from nearest.layers.chaos import Chaos, Fault, by_chance, script
from nearest.stores.memory import MemoryStore

SCHEMA = Schema(vectors={"dense": VectorSpec(2)})
RECORDS = [Record(str(i), {"dense": [1, i]}) for i in range(8)]


def test_faults_by_script() -> None:
    slept: list[float] = []
    plan = script([Fault("before"), Fault("after"), None, Fault("delay", 3.0), Fault("throttle", 2.0)])
    inner = MemoryStore.create(SCHEMA)
    store = Chaos(inner, plan, sleep=slept.append)
    with pytest.raises(ConnectionFailed, match="before"):
        store.upsert(RECORDS)
    assert inner.count() == 0
    with pytest.raises(ConnectionFailed, match="after"):
        store.upsert(RECORDS)
    assert inner.count() == 8
    assert store.count() == 8
    assert slept == []
    store.delete(["0"])
    assert (inner.count(), slept) == (7, [3.0])
    with pytest.raises(Throttled) as raised:
        store.delete(["1"])
    assert raised.value.context["retry_after"] == 2.0
    store.delete(["1"])
    assert inner.count() == 6


def test_a_part_fails() -> None:
    sizes = set()
    for seed in range(20):
        inner = MemoryStore.create(SCHEMA)
        store = Chaos(inner, script([Fault("partial"), None, Fault("partial"), Fault("partial")]), seed=seed)
        with pytest.raises(BatchFailed) as raised:
            store.upsert(RECORDS)
        failed = set(raised.value.failed)
        assert raised.value.retryable
        assert {record.id for record in inner.scan_all()} == {record.id for record in RECORDS} - failed
        sizes.add(len(failed))
        store.upsert(RECORDS)
        with pytest.raises(BatchFailed) as raised:
            store.delete(record.id for record in RECORDS)
        assert {record.id for record in inner.scan_all()} == set(raised.value.failed)
        with pytest.raises(ConnectionFailed):  # nothing to do in part
            store.count()
    assert len(sizes) > 3


def test_faults_by_chance_follow_the_seed() -> None:
    chances = {Fault("before"): 0.2, Fault("throttle", 1.0): 0.3}
    drawn = [[plan("get") for _ in range(2000)] for plan in (by_chance(chances, 1), by_chance(chances, 1))]
    assert drawn[0] == drawn[1]
    counted = Counter(drawn[0])
    assert 300 < counted[Fault("before")] < 500
    assert 500 < counted[Fault("throttle", 1.0)] < 700
    assert drawn[0] != [by_chance(chances, 2)("get") for _ in range(2000)]
