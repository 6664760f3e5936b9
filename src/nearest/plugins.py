"""Discovery: which parts exist, in this package and in other people's.

A part is a module of its room's package, or an entry point of the group `nearest.<room>` that names
one. Nothing is imported until it is asked for, and no list is kept by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Literal

from nearest.errors import InvalidInput

Room = Literal["stores", "embedders", "readers", "chunkers", "generators", "rerankers"]


@cache
def names(room: Room) -> dict[str, str]:
    """Module path by name, own parts first; names that start with _ are not parts."""
    package = importlib.import_module(f"nearest.{room}")
    own = {m.name: f"nearest.{room}.{m.name}" for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_"}
    others = {e.name: e.value for e in metadata.entry_points(group=f"nearest.{room}")}
    return {**others, **own}


def load(room: Room, name: str) -> ModuleType:
    """The module of a part; raises InvalidInput, listing what there is."""
    found = names(room)
    if name not in found:
        raise InvalidInput(f"no {room.removesuffix('s')} named {name!r}; there are {', '.join(sorted(found))}")
    return importlib.import_module(found[name])


def load_all(room: Room) -> dict[str, ModuleType]:
    """Every part of a room, by name, sorted."""
    return {name: load(room, name) for name in sorted(names(room))}
