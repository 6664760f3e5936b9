"""The PostgreSQL store: the conformance suite, and what is its own."""

from __future__ import annotations

import itertools

import pytest

from nearest import stores
from nearest.contract import Schema, Store
from nearest.stores import pgvector
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen
from tests.stores.postgres import Postgres, postgres

__all__ = ["postgres"]
_numbers = itertools.count()


class TestPgvector(StoreSuite):
    module = pgvector

    @pytest.fixture
    def places(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def make(self, postgres: Postgres, places: dict[int, str]) -> Make:
        def new(schema: Schema) -> Store:
            url = postgres.url(table=f"suite{next(_numbers)}")
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
