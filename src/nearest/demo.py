"""Something to try nearest on that every reader has: the documentation of Python's standard library.

Each public module, class, function and method with a docstring is a document. Source is parsed, not
run; only modules without Python source (built-in and extension modules) are imported. A thing that is
defined in a private module, or in a part of its package, has the shortest public name that leads to it:
`asyncio.run`, not `asyncio.runners.run`; `os.listdir`, not `posix.listdir`.

It is no room of its own: documents for `app`, which hands them to the command line.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from nearest.contract import Document, FieldKind

FIELDS: Mapping[str, FieldKind] = {"kind": "keyword", "module": "keyword", "has_examples": "bool"}
QUESTIONS: Sequence[tuple[str, Mapping[str, Any] | None]] = (
    ("run a command and capture its output", None),
    ("compare two texts line by line and show the differences", None),
    ("pick random elements from a list without repeats", None),
    ("count how often each item occurs", {"kind": "class", "has_examples": True}),
)

# Tests, examples and jokes; readline writes to the terminal when it is imported.
_LEFT_OUT = {"antigravity", "idlelib", "lib2to3", "readline", "test", "tests", "this", "turtledemo", "__main__"}
# What `os` is made of; its functions are documented under its name.
_BEHIND = {"posix", "nt"}

Kind = Literal["module", "class", "function", "method"]


@dataclass(frozen=True)
class Demo:
    """What there is to show: documents, the metadata to index for filters, questions with their conditions."""

    documents: list[Document]
    fields: Mapping[str, FieldKind]
    questions: Sequence[tuple[str, Mapping[str, Any] | None]]


@dataclass
class _Thing:
    """What a name in a module stands for."""

    kind: Kind
    signature: str  # what follows the name
    doc: str
    methods: dict[str, _Thing] = field(default_factory=dict)


@dataclass
class _Module:
    name: str
    doc: str = ""
    things: dict[str, _Thing] = field(default_factory=dict)
    imported: list[tuple[str, str, str]] = field(default_factory=list)  # module, name there or *, name here
    listed: frozenset[str] | None = None  # __all__, where it can be read
    extended: bool = False  # more is put into __all__ at run time
    borrowed: set[str] = field(default_factory=set)  # names imported one by one

    def names(self) -> Iterator[str]:
        """Its public names."""
        for name in self.things:
            if self.listed is None:
                public = not name.startswith("_")
            else:
                own = self.extended and name not in self.borrowed and not name.startswith("_")
                public = own or name in self.listed
            if public:
                yield name


def version() -> str:
    """The Python whose library this is, as in the metadata."""
    return ".".join(platform.python_version_tuple()[:2])


def load(only: Iterable[str] | None = None) -> Demo:
    """All of it; see `documents`."""
    return Demo(documents(only), FIELDS, QUESTIONS)


def documents(only: Iterable[str] | None = None) -> list[Document]:
    """The documents, sorted by id. only: top-level modules, instead of all."""
    library = _Library()
    wanted = sorted(sys.stdlib_module_names if only is None else only)
    shown = [
        module
        for top in wanted
        if top not in _LEFT_OUT | _BEHIND
        for module in library.below(top)
        if not any(part.startswith("_") for part in module.name.split("."))
    ]
    names: dict[int, tuple[str, str, _Thing]] = {}  # the best path of a thing, and the module it is in
    for module in shown:
        library.follow(module)
        for own in module.names():
            thing = module.things[own]
            path = own if module.name == "builtins" else f"{_shown(module.name)}.{own}"
            known = names.get(id(thing))
            if known is None or (path.count("."), path) < (known[0].count("."), known[0]):
                names[id(thing)] = path, _shown(module.name), thing
    found = {
        _shown(module.name): _document(_shown(module.name), _shown(module.name), _Thing("module", "", module.doc))
        for module in shown
        if module.doc
    }
    for path, name, thing in names.values():
        if thing.doc:
            found[path] = _document(path, name, thing)
        for method, its in thing.methods.items():
            found[f"{path}.{method}"] = _document(f"{path}.{method}", name, its)
    return [found[path] for path in sorted(found)]


def _shown(module: str) -> str:
    return "os.path" if module == os.path.__name__ else module


def _document(path: str, module: str, thing: _Thing) -> Document:
    metadata = {"module": module, "kind": thing.kind, "python": version(), "has_examples": ">>>" in thing.doc}
    return Document(path, f"{path}{thing.signature}\n\n{thing.doc}", metadata)


class _Library:
    """The modules of the standard library, each loaded when it is asked for."""

    def __init__(self) -> None:
        self._folder = Path(sysconfig.get_path("stdlib"))
        self._modules: dict[str, dict[str, _Module]] = {}  # by top-level name, by name

    def below(self, top: str) -> list[_Module]:
        """A top-level module, and if it is a package all that is in it."""
        if top not in self._modules:
            if (self._folder / top).is_dir():
                found = list(_package(top, self._folder / top))
            elif (self._folder / f"{top}.py").is_file():
                found = [_parse(top, self._folder / f"{top}.py")]
            else:
                found = list(_import(top))
            self._modules[top] = {module.name: module for module in found}
        return list(self._modules[top].values())

    def follow(self, module: _Module) -> None:
        """Give a module what it imports from private modules, and from parts of its own package."""
        imported, module.imported = module.imported, []
        for source, name, here in imported:
            top = source.partition(".")[0]
            if not (source.startswith((f"{module.name}.", "_")) or top in _BEHIND):
                continue
            self.below(top)
            origin = self._modules[top].get(source)
            if origin is None:
                continue
            self.follow(origin)
            for own, as_here in [(own, own) for own in origin.names()] if name == "*" else [(name, here)]:
                # Where code in Python and its replacement in C are both there, the last one is used.
                if own in origin.things:
                    module.things[as_here] = origin.things[own]
                    if name != "*":
                        module.borrowed.add(as_here)


# --- from source -----------------------------------------------------------------------------------


def _package(name: str, folder: Path) -> Iterator[_Module]:
    for path in sorted(folder.iterdir()):
        if path.stem in _LEFT_OUT:
            continue
        if path.suffix == ".py":
            yield _parse(name if path.stem == "__init__" else f"{name}.{path.stem}", path)
        elif (path / "__init__.py").is_file():
            yield from _package(f"{name}.{path.name}", path)


def _parse(name: str, path: Path) -> _Module:
    module = _Module(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old docstrings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return module
    module.doc = ast.get_docstring(tree) or ""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    _statements(tree.body, module, package)
    return module


def _statements(body: list[ast.stmt], module: _Module, package: str) -> None:
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                module.things[node.name] = _from_node(node)
            case ast.ImportFrom():
                source = node.module or ""
                if node.level:
                    base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                    source = f"{base}.{source}" if source else base
                module.imported += [(source, alias.name, alias.asname or alias.name) for alias in node.names]
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as value):
                names = [item.value for item in value.elts if isinstance(item, ast.Constant)]
                module.listed = frozenset(name for name in names if isinstance(name, str))
            case (
                ast.AugAssign(target=ast.Name(id="__all__"))
                | ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="__all__"))))
            ):
                module.extended = True
            case ast.If() | ast.Try():
                for part in (node.body, *(h.body for h in getattr(node, "handlers", [])), node.orelse):
                    _statements(part, module, package)


def _from_node(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> _Thing:
    doc = ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        return _Thing("function", f"({ast.unparse(node.args)})", doc)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    thing = _Thing("class", f"({bases})" if bases else "", doc)
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            told = ast.get_docstring(inner)
            if told:
                thing.methods[inner.name] = _Thing("method", f"({ast.unparse(inner.args)})", told)
    return thing


# --- from modules without source -------------------------------------------------------------------


def _import(name: str) -> Iterator[_Module]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imported = importlib.import_module(name)
    except Exception:  # noqa: BLE001 -- one that this machine cannot load has nothing to show
        return
    yield _from_objects(name, imported)


def _from_objects(name: str, imported: ModuleType) -> _Module:
    module = _Module(name, inspect.cleandoc(imported.__doc__ or ""))
    for own, value in list(vars(imported).items()):
        name_of_it = getattr(value, "__name__", own)
        if own.startswith("_") or (name_of_it != own and vars(imported).get(name_of_it) is value):
            continue  # `array.ArrayType` is `array.array`
        if inspect.isclass(value):
            # A class of another module is documented there.
            if value.__module__ in (name, "builtins") or "_" in (name[0], value.__module__[0]):
                module.things[own] = _from_class(value)
        elif inspect.isroutine(value):
            module.things[own] = _Thing("function", _signature(value), _doc(value))
    return module


def _from_class(value: type) -> _Thing:
    thing = _Thing("class", _signature(value), _doc(value))
    for name, member in vars(value).items():
        if not name.startswith("_") and (inspect.isroutine(member) or inspect.isdatadescriptor(member)):
            told = _doc(member)
            if told and inspect.isroutine(member):
                thing.methods[name] = _Thing("method", _signature(member), told)
    return thing


def _doc(value: Any) -> str:
    doc = getattr(value, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _signature(value: Any) -> str:
    # As it is written: inspect.signature evaluates default values, which fails for some.
    text = getattr(value, "__text_signature__", None)
    return text.replace("$", "") if isinstance(text, str) else ""
