"""What keeps the rooms apart and import-linter cannot say; see docs and [tool.importlinter] in pyproject.toml."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import nearest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "nearest"

PUBLIC = [
    "open",
    "connect",
    "embedder",
    "Collection",
    "Document",
    "Hit",
    "Record",
    "Schema",
    "VectorSpec",
    "SparseVector",
    "Meter",
    "IndexParams",
    "Report",
    "NearestError",
    "errors",
]

# Clients and heavy parts: each is imported where it is first used, so that the command line starts at once.
LAZY = {
    *("alembic", "huggingface_hub", "py3langid", "tree_sitter", "hypothesis", "openvino", "pytest"),
    *("qdrant_edge", "sqlalchemy", "tokenizers", "torch"),
    *("cohere", "openai", "redis", "sentence_transformers"),
    *("chromadb", "faiss", "pinecone", "psycopg", "pymilvus", "qdrant_client", "weaviate"),
}

DATABASES = {"chroma", "edge", "faiss", "milvus", "pgvector", "pinecone", "qdrant", "weaviate"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_public_surface_is_what_it_was() -> None:
    assert sorted(nearest.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(nearest, name) is not None


@pytest.mark.parametrize("module", ["nearest", "nearest.cli"])
def test_importing_brings_in_nothing_heavy(module: str) -> None:
    if module == "nearest.cli" and not (SRC / "cli" / "__init__.py").exists():
        pytest.skip("there is no command line yet")
    code = f"import sys, json, {module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert LAZY & {name.partition(".")[0] for name in json.loads(done.stdout)} == set()


def test_no_store_knows_another() -> None:
    for path in sources("src/nearest/stores"):
        if path.name != "__init__.py":
            others = {n for n in imports_of(path) if re.match(r"nearest\.stores\.[a-z]", n)}
            assert others == set(), f"{short(path)}: only _family.py files are shared"


def test_every_room_is_in_a_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    ruled = {m for c in settings["contracts"] for m in c.get("source_modules", []) + c.get("layers", [])}
    rooms = {p.stem for p in SRC.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    rooms -= {"__init__", "__main__"}  # which only calls the command line
    missing = {room for room in rooms if f"nearest.{room}" not in " ".join(ruled)}
    assert missing == set(), "say in [tool.importlinter] whom these may know"


def test_nothing_branches_on_a_databases_name() -> None:
    found = set()
    for path in sources("src/nearest"):
        if path.is_relative_to(SRC / "stores"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Compare():
                    parts: list[ast.AST] = [node.left, *node.comparators]
                case ast.MatchValue():
                    parts = [node.value]
                case _:
                    continue
            constants = (n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant))
            found |= {f"{short(path)}: {c}" for c in constants if isinstance(c, str) and c in DATABASES}
    assert found == set(), "let the store's file declare what makes it different"


@pytest.mark.parametrize("path", sources("src", "tests", "tools", "benchmarks"), ids=short)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), "a docstring on the first lines"


def test_no_file_names_a_registry_or_a_place_on_this_machine() -> None:
    # Their dots and slashes stand in brackets, so that this file does not name them itself.
    hosts = "pypi[.]org pythonhosted[.]org pytorch[.]org npmjs[.] crates[.]io golang[.]org conda[.]org rubygems[.]org"
    places = "/work[/]main /work[/]shared /root[/] /opt[/]pypi /opt[/]wheels /tmp[/]venv"
    wrong = re.compile("|".join([*hosts.split(), *places.split()]))
    found = [
        f"{short(path)}:{number}: {match[0]}"
        for path in text_files(ROOT)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := wrong.search(line))
    ]
    assert found == []


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def text_files(folder: Path) -> Iterator[Path]:
    """Files of the project, without what .gitignore leaves out and without big or binary ones; git may be absent."""
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in {".ci", ".gitignore", ".github"}
        if hidden or path.name in {"__pycache__", "dist", "build"} or path.is_symlink():
            continue
        if path.is_dir():
            yield from text_files(path)
        elif path.stat().st_size < 1_000_000 and b"\0" not in path.read_bytes()[:1000]:
            yield path
