"""Readers: one file a format. This file only finds them.

A reader's module declares
    READER    its class, a `contract.Reader`, made without arguments

The empty extension is that of files without one (README, Makefile); the reader that claims it decides by
their content.
"""

from __future__ import annotations

from pathlib import Path

from nearest import plugins
from nearest.contract import Reader
from nearest.errors import Unreadable


def extensions() -> dict[str, type[Reader]]:
    """The reader of each extension, which is in lower case and with its dot."""
    modules = plugins.load_all("readers").values()
    return {extension: module.READER for module in modules for extension in module.READER.extensions}


def for_path(path: Path) -> Reader:
    """The reader of a file, by its extension; raises Unreadable, listing all, where there is none."""
    known = extensions()
    extension = path.suffix.lower()
    if extension not in known:
        raise Unreadable(f"no reader for {extension}; there are {', '.join(sorted(filter(None, known)))}")
    return known[extension]()
