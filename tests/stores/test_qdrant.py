"""The Qdrant store: the conformance suite through the client's HTTP, creation, and how servers refuse."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from nearest import stores
from nearest.contract import Schema, Store
from nearest.stores import qdrant
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen
from tests.stores.qdrant_double import Double, serving

# Local mode, which answers here, says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Local mode"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

SERVER = os.environ.get("NEAREST_TEST_QDRANT_URL")  # qdrant://[KEY@]HOST:6333, to which /COLLECTION is added


class _OverHTTP(StoreSuite):
    @pytest.fixture
    def server(self) -> str:
        """The URL up to the collection's name."""
        raise NotImplementedError

    @pytest.fixture
    def urls(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, server: str, urls: dict[int, str]) -> Iterator[Make]:
        def new(schema: Schema) -> Store:
            url = f"{server}/test-{uuid.uuid4().hex}"
            store = stores.connect(url, schema)
            urls[id(store)] = url
            return store

        yield new
        for url in set(urls.values()):
            with stores.connect(url) as store:
                assert isinstance(store, qdrant.QdrantStore)
                store._open.delete_collection(store._collection)

    @pytest.fixture
    def reopen(self, urls: dict[int, str]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            url = urls[id(store)]
            opened = stores.connect(url, schema)
            urls[id(opened)] = url
            return opened

        return again


class TestQdrant(_OverHTTP):
    module = qdrant

    @pytest.fixture(scope="class")
    def double(self) -> Iterator[Double]:
        with serving(Double()) as double:
            yield double

    @pytest.fixture
    def server(self, double: Double) -> str:
        return f"qdrant://127.0.0.1:{double.port}"


@pytest.mark.skipif(SERVER is None, reason="NEAREST_TEST_QDRANT_URL names no server")
class TestQdrantServer(_OverHTTP):
    module = qdrant

    @pytest.fixture
    def server(self) -> str:
        assert SERVER is not None
        return SERVER
