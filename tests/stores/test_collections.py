"""Documents on every store: the same answers as on the embedded default, and the same account of what is there.

The stores are those that the benchmarks start (benchmarks/stores), on the same servers and doubles as their own tests.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest import errors, plugins
from nearest.app import Collection
from nearest.contract import Document, Hit
from nearest.ledger import Ledger
from tests.fakes import HashEmbedder, LineChunker
from tests.stores.postgres import Postgres, postgres  # noqa: F401 -- a fixture

STORES = sorted(name for name, path in plugins.names("stores").items() if path.startswith("nearest.stores."))
WORDS = ["crash", "repair", "ledger", "filter", "vector", "index", "recall", "latency", "budget", "answer"]


@pytest.fixture(params=[name for name in STORES if name != "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    if request.param == "edge":
        yield f"edge:{tmp_path / 'kb'}"
        return
    with importlib.import_module(f"benchmarks.stores.{request.param}").serve(tmp_path / "server") as served:
        yield served


def open_kb(url: str | Path, **options: Any) -> Collection:
    return nearest.open(
        url, embedder=HashEmbedder(), chunker=LineChunker(), fields={"year": "integer"}, language="english", **options
    )


def documents(version: str = "") -> list[Document]:
    return [
        Document(
            f"d{i}",
            f"{WORDS[i % 10]} and {WORDS[(i * 3 + 1) % 10]} of number {i}{version}\nsecond line {i}: {WORDS[i % 7]}\n",
            {"year": 2000 + i % 5, "tags": [WORDS[i % 3], "all"], **({"note": {"deep": i / 2}} if i % 2 else {})},
        )
        for i in range(30)
    ]


def told(hits: list[Hit]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(hit.id, hit.text, dict(hit.metadata)) for hit in hits]


CONDITIONS: list[dict[str, Any] | None] = [
    None,
    {"year": {"$gte": 2002}},
    {"tags": {"$contains": "crash"}, "year": {"$ne": 2001}},
    {"$or": [{"note.deep": {"$gt": 3}}, {"note": {"$exists": False}, "year": 2000}]},
    {"note.deep": {"$not": {"$lt": 10}}},
]


def test_the_same_documents_give_the_same_answers(url: str, tmp_path: Path) -> None:
    with pytest.raises(errors.NotACollection, match="no collection"):
        open_kb(url, create=False)
    with open_kb(url) as kb, open_kb(tmp_path / "reference") as reference:
        for collection in (kb, reference):
            report = collection.add(documents())
            assert (report.added, report.failed) == (30, [])
        for where in CONDITIONS:
            for mode in ("dense", "hybrid"):
                question = "crash and filter of number 20\n"
                mine = kb.search(question, k=5, mode=mode, where=where)
                theirs = reference.search(question, k=5, mode=mode, where=where)
                assert told(mine) == told(theirs), (mode, where)
                assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], abs=0.02)
            words = {hit.id for hit in kb.search("latency", k=60, mode="lexical", where=where)}
            assert words == {hit.id for hit in reference.search("latency", k=60, mode="lexical", where=where)}
            assert kb.count(where) == reference.count(where)
        assert kb.get("d7") == reference.get("d7") == documents()[7]
        assert kb.info()["documents"] == 30


def test_it_is_updated_and_reopened(url: str) -> None:
    with open_kb(url) as kb:
        kb.add(documents())
    with open_kb(url, create=False) as kb:
        assert kb.add(documents()).unchanged == 30
        assert kb.add(documents(" revised")[:3]).updated == 3
        assert kb.delete(["d5", "nobody"]) == 1
        assert kb.count() == 29
        assert kb.get("d5") is None
        again = kb.search("revised", mode="lexical", k=10)
        assert {hit.document_id for hit in again} == {"d0", "d1", "d2"}
        assert {record.document_id for record in kb.scan()} == {f"d{i}" for i in range(30) if i != 5}
    with open_kb(url) as kb:
        assert kb.info()["records"] == kb.info()["chunks"] == 58
        assert not kb.search("second line 5: index\n", mode="dense", k=1)[0].id.startswith("d5")


def test_a_creation_that_was_cut_off_is_made_whole_or_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "set", stop)  # the store is made, the ledger does not know as what
        with pytest.raises(KeyboardInterrupt):
            open_kb(url)
    with pytest.raises(errors.NotACollection, match="no collection"):
        open_kb(url, create=False)
    other: Any = {"embedder": HashEmbedder(24), "chunker": LineChunker(), "fields": {"month": "integer"}}
    dimension = 24
    try:
        kb = nearest.open(url, **other)
    except errors.SchemaMismatch:
        with pytest.raises(errors.SchemaMismatch, match=r"16.*24|year.*month"):  # what there is, and what was asked
            nearest.open(url, **other)
        with pytest.raises(errors.NotACollection, match="no collection"):  # nothing was made of it
            open_kb(url, create=False)
        kb, dimension = open_kb(url), 16
    with kb:
        kb.add([Document("a", "crash and ledger\n", {"year": 2000, "month": 5})])
        assert [hit.id for hit in kb.search("crash", mode="lexical", where={"month": 5})] == ["a#0"]
    with nearest.open(url, create=False) as kb:
        assert kb.info()["dimension"] == dimension
        assert kb.info()["fields"] == ({"month": "integer"} if dimension == 24 else {"year": "integer"})
        assert kb.count() == 1


def test_an_interrupted_write_is_undone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_kb(url) as kb:
        kb.add(documents()[:5])

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(kb.ledger, "commit", stop)  # the records are written, the ledger does not know
            with pytest.raises(KeyboardInterrupt):
                kb.add(documents(" fresh")[:5])
        assert {hit.document_id for hit in kb.search("fresh", mode="lexical", k=50)} == set()
        assert len(list(kb.scan())) == 10
    with open_kb(url) as kb:
        assert len(kb.repaired) == 1
        assert kb.info()["records"] == 10
        assert kb.get("d0") == documents()[0]
        assert kb.add(documents(" fresh")[:5]).updated == 5
        assert {hit.document_id for hit in kb.search("fresh", mode="lexical", k=50)} == {f"d{i}" for i in range(5)}


def test_others_read_while_one_writes(url: str) -> None:
    with open_kb(url) as kb:
        kb.add(documents()[:5])
        try:
            reader = open_kb(url)
        except errors.CollectionLocked:
            return  # a folder of one process
        with reader:
            assert reader.repaired == []
            with kb.ledger.writing(), pytest.raises(errors.CollectionLocked, match="another process is writing"):
                reader.add(documents("!"))
            kb.add(documents(" changed")[:5])
            hits = reader.search("changed of number", mode="dense", k=10)
            assert len({hit.id for hit in hits}) == 10
            assert reader.get("d1") == documents(" changed")[1]


def test_files_of_one_relative_name_and_collections_of_one_file_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus in a file needs milvus-lite")
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    for folder, url in (("a", "kb.db"), ("b", "kb.db"), ("b", "kb.db?collection=one"), ("b", "kb.db?collection=two")):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        with open_kb(f"milvus:./{url}") as kb:
            assert kb.count() == 0
            assert kb.add([Document("d", "one line\n")]).added == 1
        with open_kb(f"milvus:./{url}") as kb:
            assert [hit.document_id for hit in kb.search("one line")] == ["d"]


def test_an_index_of_words_that_is_gone_is_made_again(tmp_path: Path) -> None:
    url = f"faiss:{tmp_path / 'kb'}"
    with open_kb(url) as kb:
        kb.add([Document(word, f"all about {word}\n") for word in WORDS])
    shutil.rmtree(tmp_path / "kb" / "lexical")
    with open_kb(url) as kb:
        assert [hit.document_id for hit in kb.search("repair", mode="lexical")] == ["repair"]


def test_an_index_of_words_follows_what_another_machine_wrote(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres: Postgres,  # noqa: F811 -- the fixture
) -> None:
    ledger = postgres.url(postgres.database())
    with importlib.import_module("benchmarks.stores.pinecone").serve(tmp_path) as url:

        def machine(name: str) -> Collection:
            monkeypatch.setenv("NEAREST_HOME", str(tmp_path / name))
            return open_kb(url, ledger=ledger)

        with machine("one") as kb:
            kb.add([Document("a", "all about ledgers\n")])
        with machine("two") as kb:
            assert [hit.document_id for hit in kb.search("ledgers", mode="lexical")] == ["a"]
            kb.add([Document("b", "more about ledgers\n")])
        with machine("one") as kb:
            assert {hit.document_id for hit in kb.search("ledgers", mode="lexical")} == {"a", "b"}


def test_a_language_without_a_stemmer_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    with importlib.import_module("benchmarks.stores.pinecone").serve(tmp_path) as url:
        with pytest.raises(errors.InvalidInput, match="klingon"):
            nearest.open(url, embedder=HashEmbedder(), language="klingon")
        with pytest.raises(errors.NotACollection):
            nearest.connect(url)
        with open_kb(url) as kb:
            assert kb.add([Document("a", "one line\n")]).added == 1
