"""Discovery: which parts exist, in this package and in other people's.

A part is a module of its room's package, or an entry point of the group `nearest.<room>` that names
one. Nothing is imported until it is asked for, and no list is kept by hand.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any, Literal
from urllib.parse import parse_qsl

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


def make(room: Room, spec: str, example: str, **options: Any) -> Any:
    """What the `load` of a part makes of a spec, `provider:model?option=value`; options are keywords as well.

    Written options are converted to the type that `load` declares. Raises InvalidInput for a spec of another form
    (the message shows the example), an unknown provider or option, or one that is given twice.
    """
    what = room.removesuffix("s")
    provider, colon, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    model, _, query = rest.partition("?")
    provider, model = provider.strip(), model.strip()
    if not colon or not provider or not model:
        raise InvalidInput(
            f"a {what} is written provider:model, such as {example}, got {spec!r}; "
            f"the providers are {', '.join(sorted(names(room)))}"
        )
    loader = load(room, provider.replace("-", "_")).load
    written = parse_qsl(query, keep_blank_values=True)
    if len({name for name, _ in written} | set(options)) != len(written) + len(options) or (query and not written):
        raise InvalidInput(f"{what} {spec!r}: options are written ?name=value&name=value, each once")
    parameters = inspect.signature(loader).parameters
    for name, text in written:
        declared = str(parameters[name].annotation) if name in parameters else "str"
        kind = next((kind for kind in (int, float) if kind.__name__ in declared), str)
        try:
            options[name] = kind(text)
        except ValueError:
            raise InvalidInput(f"{what} {provider}: {name} must be a number, got {text!r}") from None
    try:
        inspect.signature(loader).bind(model, **options)
    except TypeError as error:
        raise InvalidInput(f"{what} {provider}: {error}") from None
    return loader(model, **options)
