"""The suite on stores that a URL names, and on servers that the environment names (docs/stores.md says how)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from nearest import stores
from nearest.contract import Schema, Store, StoreURL
from nearest.testing.base import Base, Make, Reopen


def real_server(scheme: str) -> str | None:
    """The URL in NEAREST_TEST_<scheme>_URL, where COLLECTION stands for a name; None if it is not set.

    One that cannot be meant is an error, not a skip; and tests delete what they make, so that each needs a name.
    """
    variable = f"NEAREST_TEST_{scheme.upper()}_URL"
    url = os.environ.get(variable)
    if not url:
        return None
    if not url.startswith(f"{scheme}://") or StoreURL.parse(url).location.rpartition("/")[2] != "COLLECTION":
        raise pytest.UsageError(f"{variable} must be written {scheme}://[KEY@]HOST:PORT/COLLECTION[?options]")
    return url


class ByURL(Base):
    """`new_url`, which a class overrides, names a collection that is not there yet; `urls` is what was named so far."""

    @pytest.fixture
    def new_url(self) -> Callable[[Schema], str]:
        raise NotImplementedError  # each class names its own

    @pytest.fixture
    def urls(self) -> dict[int, str] | Iterator[dict[int, str]]:
        """By the `id` of the store. Overridden where collections outlive a test."""
        return {}

    @pytest.fixture
    def make(self, new_url: Callable[[Schema], str], urls: dict[int, str]) -> Make:
        def new(schema: Schema) -> Store:
            url = new_url(schema)
            store = stores.connect(url, schema)
            urls[id(store)] = url
            return store

        return new

    @pytest.fixture
    def reopen(self, urls: dict[int, str]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            url = urls[id(store)]
            opened = stores.connect(url, schema)
            urls[id(opened)] = url
            return opened

        return again
