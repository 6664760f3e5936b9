"""The embedded store: the conformance suite, and how it searches under conditions."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from nearest import stores
from nearest.contract import Dense, FieldKind, IndexParams, Query, Record, Schema, Store, VectorSpec
from nearest.filters import parse
from nearest.stores import edge
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen


class TestEdge(StoreSuite):
    module = edge

    @pytest.fixture
    def places(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, tmp_path: Path, places: dict[int, str]) -> Make:
        numbers = itertools.count()

        def new(schema: Schema) -> Store:
            url = f"edge:{tmp_path}/{next(numbers)}"
            store = stores.connect(url, schema)
            places[id(store)] = url
            return store

        return new

    @pytest.fixture
    def reopen(self, places: dict[int, str]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            url = places[id(store)]
            opened = stores.connect(url, schema)
            places[id(opened)] = url
            return opened

        return again


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
