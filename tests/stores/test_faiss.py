"""The FAISS store: the conformance suite, and what is its own: recall under conditions, kills, indexes on disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nearest import stores
from nearest.contract import Schema, Store
from nearest.stores import faiss
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen


class TestFaiss(StoreSuite):
    module = faiss

    @pytest.fixture
    def places(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, tmp_path: Path, places: dict[int, str]) -> Make:
        numbers = itertools.count()

        def new(schema: Schema) -> Store:
            url = f"faiss:{tmp_path}/{next(numbers)}"
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
