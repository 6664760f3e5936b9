"""The embedded store: the conformance suite, and how it searches under conditions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import stores
from nearest.contract import Dense, FieldKind, IndexParams, Query, Record, Schema, VectorSpec
from nearest.errors import InvalidRecord
from nearest.filters import parse
from nearest.stores import edge
from nearest.stores.edge import EdgeStore
from nearest.testing import StoreSuite
from tests.stores.by_url import ByURL


class TestEdge(ByURL, StoreSuite):
    module = edge

    @pytest.fixture
    def new_url(self, tmp_path: Path) -> Callable[[Schema], str]:
        numbers = itertools.count()
        return lambda _: f"edge:{tmp_path}/{next(numbers)}"


def test_conditions_that_leave_few_records_are_searched_exactly(tmp_path: Path) -> None:
    """Links between records that share one value do not connect those that share two."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12_000, 256)).astype(np.float32)
    fields: dict[str, FieldKind] = {"kind": "integer", "year": "integer"}
    schema = Schema(vectors={"dense": VectorSpec(256)}, fields=fields, index=IndexParams(ef=16))
    payloads = [{"kind": i % 4, "year": i // 4 % 5} for i in range(len(vectors))]
    both = parse({"kind": 1, "year": {"$gte": 3}})
    with stores.connect(f"edge:{tmp_path}", schema) as store:
        store.upsert(Record(str(i), {"dense": v}, p) for i, (v, p) in enumerate(zip(vectors, payloads, strict=True)))
        store.optimize()
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        matching = np.array([i for i, p in enumerate(payloads) if p["kind"] == 1 and p["year"] >= 3])
        for query in unit[:20]:
            nearest_first = matching[np.argsort(-(unit[matching] @ query), kind="stable")]
            found = store.search(Query(Dense(query), 10, both))
            assert [int(hit.id) for hit in found] == nearest_first[:10].tolist()


def test_how_many_match_is_asked_anew_after_a_write(tmp_path: Path) -> None:
    query = Query(Dense([1.0, 0.0]), 1, parse({"kind": 1}), ef=1)
    with EdgeStore.open(tmp_path, Schema({"dense": VectorSpec(2)}, fields={"kind": "integer"})) as store:
        assert store._few(query)
        store.upsert(Record(str(i), {"dense": [1.0, float(i)]}, {"kind": 1}) for i in range(100))
        assert not store._few(query)
        store.delete([str(i) for i in range(90)])
        assert store._few(query)


def test_the_engines_threads_are_as_many_as_the_segments_and_the_rest_of_its_settings_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "s" / "edge_config.json").read_text())
        return found

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    quantized = IndexParams(m=8, quantization="scalar")
    schema = Schema(vectors={"dense": VectorSpec(4), "tokens": VectorSpec(4, multi=True)}, index=quantized)
    with EdgeStore.open(tmp_path / "s", schema) as store:
        store.upsert([Record("a", {"dense": [1, 0, 0, 0], "tokens": [[1, 0, 0, 0]]}, {})])
    created = settings()
    assert created["max_search_threads"] == 4
    for _ in range(2):
        with EdgeStore.open(tmp_path / "s", None) as store:
            assert store.search(Query(Dense([1, 0, 0, 0])))[0].id == "a"
        assert created.keys() <= settings().keys()
        assert {name: settings()[name] for name in created} == {**created, "max_search_threads": 1}
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([self] * 3))
    EdgeStore.open(tmp_path / "s", None).close()
    assert settings()["max_search_threads"] == 3


def test_a_payload_key_that_is_taken_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stores.connect(f"edge:{tmp_path / 's'}", Schema(vectors={"dense": VectorSpec(4)})) as store:
        monkeypatch.setattr(store, "capabilities", replace(store.capabilities, max_batch=1))
        for name in ("nearest:id", "nearest:json"):
            with pytest.raises(InvalidRecord, match=name):
                store.upsert([Record("good", {"dense": [1, 0, 0, 0]}), Record("a", {"dense": [1, 0, 0, 0]}, {name: 1})])
        assert store.count() == 0
