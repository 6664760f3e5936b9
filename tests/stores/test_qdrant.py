"""The Qdrant store: the conformance suite on the client's local mode, and the wire."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nearest.contract import Schema, Store
from nearest.stores import qdrant
from nearest.stores.qdrant import QdrantStore
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen
from qdrant_client import QdrantClient


class TestQdrantLocal(StoreSuite):
    module = qdrant

    @pytest.fixture
    def places(self) -> dict[int, Path]:
        return {}

    @pytest.fixture
    def make(self, tmp_path: Path, places: dict[int, Path]) -> Make:
        numbers = itertools.count()

        def new(schema: Schema) -> Store:
            folder = tmp_path / str(next(numbers))
            store = QdrantStore.open(QdrantClient(path=str(folder)), "c", schema)
            places[id(store)] = folder
            return store

        return new

    @pytest.fixture
    def reopen(self, places: dict[int, Path]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            folder = places[id(store)]
            opened = QdrantStore.open(QdrantClient(path=str(folder)), "c", schema)
            places[id(opened)] = folder
            return opened

        return again
