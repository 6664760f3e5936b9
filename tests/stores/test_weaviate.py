"""The Weaviate store: the conformance suite through the client's REST and gRPC, creation, and how servers refuse."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from nearest import stores
from nearest.contract import Schema, Store
from nearest.stores import weaviate
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen
from tests.stores.weaviate_double import Double, serving

SERVER = os.environ.get("NEAREST_TEST_WEAVIATE_URL")  # weaviate://[KEY@]HOST:8080/?grpc=50051, an empty collection name


class _OverNetwork(StoreSuite):
    module = weaviate

    @pytest.fixture
    def server(self) -> str:
        """A URL with {} for the collection's name."""
        raise NotImplementedError

    @pytest.fixture
    def urls(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, server: str, urls: dict[int, str]) -> Iterator[Make]:
        def new(schema: Schema) -> Store:
            url = server.format(f"Test{uuid.uuid4().hex}")
            store = stores.connect(url, schema)
            urls[id(store)] = url
            return store

        yield new
        for url in set(urls.values()):
            with stores.connect(url) as store:
                assert isinstance(store, weaviate.WeaviateStore)
                assert store._client is not None
                store._client.collections.delete(store._open.name)

    @pytest.fixture
    def reopen(self, urls: dict[int, str]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            url = urls[id(store)]
            opened = stores.connect(url, schema)
            urls[id(opened)] = url
            return opened

        return again


class TestWeaviate(_OverNetwork):
    @pytest.fixture(scope="class")
    def double(self) -> Iterator[Double]:
        with serving(Double()) as double:
            yield double

    @pytest.fixture
    def server(self, double: Double) -> str:
        return f"weaviate://127.0.0.1:{double.port}/{{}}?grpc={double.grpc_port}"
