"""Stores: one file a vector database. This file only finds them.

A store's module declares
    SCHEMES      the URL schemes it answers to; its own name where it declares none
    REQUIRES     its client: distribution name -> version specifier; the extra is named after the file
    STORE        its class, a `contract.Store`, with `capabilities`
    KNOWN_GAPS   what the conformance suite may not expect of it yet (`contract.Gap`)
    EMBEDDED     True if its location is a folder of its own, so that a collection's ledger stands beside it
    IDENTITY     names of URL options that tell one collection from another (a table, say); none by default
    canonical    (StoreURL) -> StoreURL: the one spelling of all URLs of its collection (the host in small letters, the
                 port, names as the database writes them, no option that says its default); as given by default
    ledger       (StoreURL) -> where a collection's ledger stands: the Path of a folder, the URL of a PostgreSQL
                 database, or None (the default) for a folder of this machine's user
    connect      (StoreURL, Schema | None) -> Store: opens the collection, or with a schema creates it
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import metadata
from types import ModuleType
from typing import Any

from nearest import plugins
from nearest.contract import Capabilities, Schema, Store, StoreURL
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


def canonical(url: StoreURL) -> StoreURL:
    """The one spelling of all URLs of a collection. Raises InvalidInput for what its store does not take for a URL."""
    module = find(url.scheme)
    spelt: StoreURL = getattr(module, "canonical", lambda same: same)(url)
    return replace(spelt, scheme=schemes(module)[0])


def identity(url: StoreURL) -> str:
    """What a URL says of where its collection is, without user and password: it may be shown, and kept.

    Of `canonical` URLs it is the same for all of one collection.
    """
    module = find(url.scheme)
    place = re.sub(r"^//[^/]*@", "//", url.location)
    told = [f"{name}={url.options[name]}" for name in getattr(module, "IDENTITY", ()) if name in url.options]
    return f"{url.scheme}:{place}" + ("?" + "&".join(told) if told else "")


def connect(url: str, schema: Schema | None = None) -> Store:
    """The store behind a URL, exactly as it is: filters it cannot run natively raise (see layers.residual)."""
    parsed = StoreURL.parse(url)
    store: Store = find(parsed.scheme).connect(parsed, schema)
    return store


def describe() -> list[dict[str, Any]]:
    """What each store's module declares, JSON-able; whether its client is installed, and how it would be."""
    extras = metadata.metadata("nearest").get_all("Provides-Extra") or []
    told: list[dict[str, Any]] = []
    for name, module in plugins.load_all("stores").items():
        capabilities: Capabilities = module.STORE.capabilities
        required = [f"{package}{version}" for package, version in module.REQUIRES.items()]
        packages = f"nearest[{name}]" if name in extras else " ".join(required)
        told.append(
            {
                "name": name,
                "schemes": list(schemes(module)),
                "installed": all(_installed(package) for package in module.REQUIRES),
                "install": f"pip install '{packages}'" if required else "",
                "features": sorted(capabilities.features),
                "filters": sorted(capabilities.filters),
                "known_gaps": [{"test": g.test, "why": g.why, "reason": g.reason} for g in module.KNOWN_GAPS],
            }
        )
    return told


def _installed(package: str) -> bool:
    try:
        metadata.version(package.partition("[")[0])
    except metadata.PackageNotFoundError:
        return False
    return True
