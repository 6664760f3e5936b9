"""How a URL finds its store: own modules, other people's through entry points, and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import pytest

from nearest import plugins, stores
from nearest.contract import Schema, Store, StoreURL, VectorSpec
from nearest.errors import InvalidInput
from nearest.stores import memory
from nearest.stores.memory import MemoryStore
from nearest.testing import StoreSuite

SCHEMA = Schema(vectors={"dense": VectorSpec(4)})


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Somebody's package with a store, announced by an entry point."""
    module = ModuleType("somebody_else")
    module.SCHEMES = ("shelf", "shelfs")  # type: ignore[attr-defined]
    module.STORE = MemoryStore  # type: ignore[attr-defined]
    module.connect = lambda url, schema: MemoryStore.create(schema)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebody_else", module)
    entry = metadata.EntryPoint("shelfstore", "somebody_else", "nearest.stores")
    shadow = metadata.EntryPoint("memory", "somebody_else", "nearest.stores")
    real = metadata.entry_points

    def entry_points(**chosen: Any) -> Any:
        return [*real(**chosen), entry, shadow] if chosen.get("group") == "nearest.stores" else real(**chosen)

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    plugins.names.cache_clear()
    yield module
    plugins.names.cache_clear()


def test_own_stores_are_found_by_their_file() -> None:
    assert {"memory", "edge"} <= set(plugins.names("stores"))
    assert not any(name.startswith("_") for name in plugins.names("stores"))
    assert stores.find("memory") is memory
    assert stores.schemes(memory) == ("memory",)
    assert isinstance(stores.connect("memory:", SCHEMA), MemoryStore)


def test_every_store_declares_what_it_must() -> None:
    for name, module in plugins.load_all("stores").items():
        assert isinstance(module.REQUIRES, dict), name
        assert isinstance(module.KNOWN_GAPS, tuple), name
        assert issubclass(module.STORE, Store), name
        assert module.STORE.capabilities.features, name
        assert callable(module.connect), name


def test_an_unknown_scheme_lists_what_there_is() -> None:
    with pytest.raises(InvalidInput, match=r"no store answers to 'oracle':; there are .*edge.*memory"):
        stores.connect("oracle:somewhere", SCHEMA)


def test_a_store_of_another_package(plugin: ModuleType) -> None:
    assert plugins.names("stores")["shelfstore"] == "somebody_else"
    for scheme in ("shelf", "shelfs"):
        assert stores.find(scheme) is plugin
        assert isinstance(stores.connect(f"{scheme}:here", SCHEMA), MemoryStore)
    with pytest.raises(InvalidInput, match="no store answers to 'shelfstore'"):
        stores.find("shelfstore")


def test_an_own_store_is_not_replaced_by_another_package(plugin: ModuleType) -> None:
    assert stores.find("memory") is memory


@pytest.mark.parametrize(
    ("text", "scheme", "location", "options"),
    [
        ("memory:", "memory", "", {}),
        ("edge:./dir", "edge", "./dir", {}),
        ("edge:/a b/c:d", "edge", "/a b/c:d", {}),
        ("pg:host/db?table=a&empty=&x=%20y", "pg", "host/db", {"table": "a", "empty": "", "x": " y"}),
        ("qdrant:https://host:6333/c?key=a?b", "qdrant", "https://host:6333/c", {"key": "a?b"}),
    ],
)
def test_urls(text: str, scheme: str, location: str, options: dict[str, str]) -> None:
    assert StoreURL.parse(text) == StoreURL(text, scheme, location, options)


@pytest.mark.parametrize("text", ["", "memory", ":x", "./dir", "1x:y", "a b:c", "a-b:c"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a store's URL; write scheme:location"):
        StoreURL.parse(text)


@pytest.mark.parametrize("text", ["edge:x?table", "edge:x?a=1&b"])
def test_options_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidInput, match="options are written name=value"):
        StoreURL.parse(text)


# --- who takes part --------------------------------------------------------------------------------


def test_every_own_store_goes_through_the_suite() -> None:
    """A store's file `x.py` comes with `test_x.py` that subclasses the suite."""
    import importlib

    own = {name for name, path in plugins.names("stores").items() if path.startswith("nearest.stores.")}
    tested = set()
    for name in own:
        tests = importlib.import_module(f"tests.stores.test_{name}")
        suites = [one for one in vars(tests).values() if isinstance(one, type) and issubclass(one, StoreSuite)]
        tested |= {suite.module.__name__ for suite in suites if hasattr(suite, "module")}
    assert tested == {f"nearest.stores.{name}" for name in own}
    assert len(own) >= 2


def test_the_suite_has_its_tests() -> None:
    """Fails where a part of the suite got lost; the number only grows."""
    tests = [name for name in dir(StoreSuite) if name.startswith("test_")]
    assert len(tests) >= 80
    stores_with_all = [name for name in tests if callable(getattr(StoreSuite, name))]
    assert stores_with_all == tests
