"""Stores: one file a vector database. This file only finds them.

A store's module declares
    SCHEMES      the URL schemes it answers to; its own name where it declares none
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    STORE        its class, a `contract.Store`, with `capabilities`
    KNOWN_GAPS   what the conformance suite may not expect of it yet (`contract.Gap`)
    connect      (StoreURL, Schema | None) -> Store: opens the collection, or with a schema creates it
"""

from __future__ import annotations

from types import ModuleType

from nearest import plugins
from nearest.contract import Schema, Store, StoreURL
from nearest.errors import InvalidInput


def find(scheme: str) -> ModuleType:
    """The module that answers to a URL scheme; raises InvalidInput, listing all schemes."""
    if scheme in plugins.names("stores"):
        module = plugins.load("stores", scheme)
        if scheme in schemes(module):
            return module
    every = plugins.load_all("stores").values()
    for module in every:
        if scheme in schemes(module):
            return module
    known = sorted(s for module in every for s in schemes(module))
    raise InvalidInput(f"no store answers to {scheme!r}:; there are {', '.join(known)}")


def schemes(module: ModuleType) -> tuple[str, ...]:
    return getattr(module, "SCHEMES", (module.__name__.rpartition(".")[2],))


def connect(url: str, schema: Schema | None = None) -> Store:
    """The store behind a URL, exactly as it is: filters it cannot run natively raise (see layers.residual)."""
    parsed = StoreURL.parse(url)
    store: Store = find(parsed.scheme).connect(parsed, schema)
    return store
