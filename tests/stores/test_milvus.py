"""Milvus by Milvus Lite: the conformance suite on a file and over the network, and what is Milvus' own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from nearest import stores
from nearest.contract import Capabilities, Schema, Store
from nearest.stores import milvus
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen

pytest.importorskip("pymilvus", reason="pymilvus is not installed: nearest[milvus]")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")

LITE = milvus._Server((3, 2), lite=True)
DECLARED = Capabilities(LITE.features(), milvus._FILTERS)


class OnMilvusLite(StoreSuite):
    """A new URL for every collection, by the fixture `place`."""

    module = milvus
    declared = DECLARED

    @pytest.fixture
    def place(self) -> Callable[[], str]:
        raise NotImplementedError

    @pytest.fixture
    def places(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, place: Callable[[], str], places: dict[int, str]) -> Make:
        def new(schema: Schema) -> Store:
            url = place()
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


class TestMilvusFile(OnMilvusLite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Callable[[], str]:
        numbers = itertools.count()
        return lambda: f"milvus:{tmp_path}/{next(numbers)}.db"
