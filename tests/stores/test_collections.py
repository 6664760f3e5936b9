"""Documents on every store: the same answers as on the embedded default, and the same account of what is there.

The stores are those that the benchmarks start (benchmarks/stores), on the same servers and doubles as their own tests.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nearest
from nearest import errors, plugins, stores
from nearest.app import Collection
from nearest.contract import FACTS, Document, Hit, Record, Schema, StoreURL, VectorSpec
from nearest.layers.lexical import Lexical
from nearest.ledger import Ledger
from nearest.location import Location
from nearest.stores import pgvector
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
        info = kb.info()
        assert info["documents"] == 30
        assert set(info["store"]) - {"lexical"} == set(FACTS)
        assert info["store"]["index"]
        assert info["store"]["disk_bytes"] is None or info["store"]["disk_bytes"] > 0


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
            kb.add([Document("a", "all about books\n")])  # as many records as before
        with machine("two") as kb:
            assert [hit.document_id for hit in kb.search("books", mode="lexical")] == ["a"]
            assert [hit.document_id for hit in kb.search("ledgers", mode="lexical")] == ["b"]
            with machine("one") as other:
                other.add([Document("a", "all about maps\n")])
            kb.add([Document("b", "more about maps\n")])  # not alone: what is in between was not seen
        with machine("two") as kb:
            assert {hit.document_id for hit in kb.search("maps", mode="lexical")} == {"a", "b"}
        with monkeypatch.context() as patched:  # what is known to be equal is not compared again
            patched.setattr(Lexical, "verify", Mock(side_effect=AssertionError))
            for _ in range(2):
                with machine("two") as kb:
                    kb.add([Document("c", f"other things {_}\n")])


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


# --- one collection, however its URL is spelt -------------------------------------------------------

SPELLINGS = [
    ("qdrant://localhost:6333/docs", "qdrant://LOCALHOST/docs?grpc=true", "qdrant://a-key@localhost:6333/docs"),
    ("qdrant://localhost:6333/my docs", "qdrant://localhost/my%20docs"),
    ("postgresql://h/db?table=docs", "postgres://H:5432/db?table=docs&sslmode=require", "postgresql:///db?table=docs&host=h"),
    ("postgresql://h/db", "postgresql://me:a@secret@h/db?table=nearest&password=secret", "postgresql://db@h"),
    ("postgresql://h:5433/db", "postgresql://h/db?port=5433", "postgresql://h/?dbname=db&port=5433"),
    ("postgresql:///db?host=/run/pg&table=docs", "postgresql://%2Frun%2Fpg/db?table=docs"),
    ("weaviate://h:8080/Docs?grpc=50051", "weaviate://H/docs", "weaviate://h/Docs?tls=false&timeout=3"),
    ("weaviate://a-key@h:443/Docs?tenant=a", "weaviate://h/docs?tls=true&tenant=a"),
    ("milvus://h:19530/docs", "milvus://root:secret@H/default/docs", "milvus://h/docs?token=secret&timeout=3"),
    ("milvus:./x.db", "milvus:x.db", "milvus:x.db/", "milvus:sub/../x.db?collection=nearest", "milvus:{here}/x.db"),
    ("chroma://h:8000/docs", "chroma://H/docs?database=default_database", "chroma://h/docs?tenant=default_tenant"),
    ("chroma://h/docs?ssl=true&tenant=a&database=b", "chroma://h:443/docs?database=b&tenant=a&ssl=true"),
    ("chroma:./dir/docs", "chroma:dir/docs", "chroma:{here}/dir/docs"),
]  # fmt: skip
DIFFERENT = [
    ("qdrant://h:6333/docs", "qdrant://h:6334/docs", "qdrant://g:6333/docs", "qdrant://h:6333/Docs"),
    ("postgresql://h/db", "postgresql://h/db?table=docs", "postgresql://h/other", "postgresql://h:5433/db"),
    ("weaviate://h/Docs", "weaviate://h/DOCS", "weaviate://h/docs?tenant=a", "weaviate://h/docs?tls=true"),
    ("milvus://h/docs", "milvus://h/other/docs", "milvus:docs", "milvus:docs?collection=a"),
    ("chroma://h/docs", "chroma://h/docs?ssl=true", "chroma://h/docs?tenant=a", "chroma:h/docs"),
]


def ledger_of(url: str, ledger: Path | None = None) -> tuple[Path | None, str]:
    place = Location.of(url.replace("{here}", str(Path.cwd())), ledger)
    return place.folder and place.folder.absolute(), place.namespace


@pytest.mark.parametrize("named", [False, True])
def test_spellings_of_one_collection_are_of_one_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ledger = tmp_path / "ledgers" if named else None
    for urls in SPELLINGS:
        assert len({ledger_of(url, ledger) for url in urls}) == 1, urls
    for urls in DIFFERENT:
        assert len({ledger_of(url, ledger) for url in urls}) == len(urls), urls
    folder, namespace = ledger_of("postgresql://me:a@secret@h/db?password=secret", ledger)
    assert "secret" not in f"{folder}{namespace}{Location.of('postgresql://me:a@secret@h/db?password=secret').name}"


@given(
    scheme=st.sampled_from(["qdrant", "weaviate", "milvus", "chroma", "postgresql"]),
    host=st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z]{2,5})?", fullmatch=True),
    name=st.from_regex(r"[a-z][a-z0-9]{2,9}", fullmatch=True),
    data=st.data(),
)
def test_the_form_most_used_so_far_keeps_its_identity(scheme: str, host: str, name: str, data: st.DataObject) -> None:
    module = importlib.import_module(f"nearest.stores.{'pgvector' if scheme == 'postgresql' else scheme}")
    port = {"qdrant": ":6333", "weaviate": ":8080", "milvus": ":19530", "chroma": ":8000", "postgresql": ""}[scheme]
    used = StoreURL.parse(f"{scheme}://{host}{port}/{name.capitalize() if scheme == 'weaviate' else name}")
    assert stores.canonical(used) == used
    user = data.draw(st.sampled_from(["", "me@", "me:secret@"] if scheme in ("milvus", "postgresql") else [""]))
    spelt = "".join(data.draw(st.sampled_from([c, c.upper()])) for c in host)
    other = f"{module.SCHEMES[-1] if hasattr(module, 'SCHEMES') else scheme}://{user}{spelt}/{name}"
    assert stores.identity(stores.canonical(StoreURL.parse(other))) == stores.identity(used)


@pytest.mark.parametrize("store", ["weaviate", "qdrant", "milvus", "chroma"])
def test_documents_are_found_under_another_spelling(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    with importlib.import_module(f"benchmarks.stores.{store}").serve(tmp_path / "server") as url:
        one = url.replace("127.0.0.1", "localhost")
        other = one.replace("localhost", "LOCALHOST").replace(f"{tmp_path}/", "")
        monkeypatch.chdir(tmp_path)
        if store == "milvus":
            other += "?collection=nearest"
        if store == "weaviate":
            other = re.sub(r"/(\w)(\w*)\?", lambda found: f"/{found[1].swapcase()}{found[2]}?", other)
        assert one != other
        with open_kb(one) as kb:
            kb.add([Document("a", "all about ledgers\n")])
        with open_kb(other, create=False) as kb:
            assert kb.add([Document("b", "more about ledgers\n")]).added == 1
        with open_kb(one, create=False) as kb:
            assert {hit.document_id for hit in kb.search("ledgers", mode="lexical")} == {"a", "b"}


def test_a_collection_of_before_is_found_under_the_spelling_it_was_made_under(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres: Postgres,  # noqa: F811 -- the fixture
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    database = postgres.url(postgres.database(), table="docs")
    urls = [database.replace("postgresql:", "postgres:"), "chroma:./chroma/../chroma/docs"]
    with monkeypatch.context() as before:
        before.setattr(stores, "canonical", lambda url: url)  # each spelling had its ledger
        for url in urls:
            with open_kb(url, ledger=tmp_path / "ledgers" if url.startswith("chroma") else None) as kb:
                kb.add([Document("a", "one line\n")])
    for url in urls:
        for _ in range(2):
            with open_kb(url, ledger=tmp_path / "ledgers" if url.startswith("chroma") else None) as kb:
                assert kb.count() == 1
                assert [hit.document_id for hit in kb.search("one line")] == ["a"]
    with pytest.raises(errors.NotACollection, match=r"no ledger accounts for"):  # not found, and not taken over
        open_kb(database)


def test_two_spellings_of_a_database_exclude_each_other_from_writing(postgres: Postgres) -> None:  # noqa: F811
    url = postgres.url(postgres.database(), table="docs")
    with open_kb(url) as kb, open_kb(url.replace("postgresql:", "postgres:") + "&application_name=other") as other:
        with kb.ledger.writing(), pytest.raises(errors.CollectionLocked):
            other.add([Document("a", "one line\n")])
        assert other.add([Document("a", "one line\n")]).added == 1
        assert kb.count() == 1


# --- nothing half-created, and what is said of what is not there --------------------------------------


def schemas(postgres: Postgres, database: str) -> set[str]:  # noqa: F811
    """What a database holds beside what every one does."""
    rows = postgres.run("SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'", database=database)
    tables = postgres.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
    return {name for (name,) in rows} - {"public", "information_schema"} | {name for (name,) in tables}


def test_a_refused_creation_leaves_nothing_in_the_database(
    postgres: Postgres,  # noqa: F811 -- the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    database = postgres.database()
    url = postgres.url(database, table="docs")
    with pytest.raises(errors.NotACollection, match="no collection"):
        open_kb(url, create=False)
    with pytest.raises(errors.InvalidInput, match="table must be"):
        open_kb(postgres.url(database, table="d" * 60))
    with pytest.raises(errors.InvalidInput, match="search_path"):
        open_kb(url + "&options=-csearch_path%3Dnowhere")
    user = f"guest_{database}"
    postgres.run(f"CREATE ROLE {user} LOGIN", f"GRANT CREATE ON SCHEMA public TO {user}", database=database)
    with pytest.raises(errors.AccessDenied, match=r"may not make a schema.*GRANT CREATE ON DATABASE"):
        open_kb(postgres.url(database, user=user, table="docs"))
    postgres.run(f"GRANT CREATE ON DATABASE {database} TO {user}")
    with monkeypatch.context() as patched:  # the right to make one is there, the store refuses nevertheless
        patched.setattr(pgvector, "_check_server", refuse)
        with pytest.raises(errors.AccessDenied, match="CREATE EXTENSION"):
            open_kb(postgres.url(database, user=user, table="docs"))
    assert schemas(postgres, database) == set()
    assert not (tmp_path / "home").exists()
    postgres.run("CREATE TABLE docs (a int)", database=database)
    with pytest.raises(errors.NotACollection, match="not a collection of nearest"):
        open_kb(url)
    assert schemas(postgres, database) == {"docs"}


def refuse(*_: Any) -> None:
    raise errors.AccessDenied("an administrator must run: CREATE EXTENSION vector;")


def test_a_crash_between_the_store_and_its_ledger_is_continued(
    postgres: Postgres,  # noqa: F811 -- the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    url = postgres.url(postgres.database(), table="docs")
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_opened", stop)  # its schema is there, its tables are not
        with pytest.raises(KeyboardInterrupt):
            open_kb(url)
    with pytest.raises(errors.NotACollection, match="no collection"):
        open_kb(url, create=False)
    with open_kb(url) as kb:
        assert kb.add([Document("a", "one line\n")]).added == 1


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("chroma://127.0.0.1:1/docs", errors.ConnectionFailed, "does not answer.*is the server running"),
        ("qdrant://127.0.0.1:1/docs", errors.ConnectionFailed, "cannot be reached.*check that it runs"),
        ("weaviate://127.0.0.1:1/docs", errors.ConnectionFailed, "cannot be reached.*is it running"),
        ("milvus://127.0.0.1:1/docs", errors.ConnectionFailed, "cannot be reached.*is the server up"),
        ("postgresql://127.0.0.1:1/docs", errors.ConnectionFailed, "did not answer.*check host, port"),
        ("chroma:{here}/x!", errors.InvalidInput, "x!"),
        ("milvus:{here}/x.db?collection=1", errors.InvalidInput, "cannot name"),
        ("faiss:{here}/kb?index=NONSENSE", errors.InvalidInput, "NONSENSE"),
    ],
)
def test_a_refused_creation_leaves_no_ledger(
    url: str, error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEAREST_HOME", str(tmp_path / "home"))
    url = url.replace("{here}", str(tmp_path))
    for create in (True, False) if error is errors.ConnectionFailed else (True,):
        with pytest.raises(error, match=f"(?s){says}"):
            open_kb(url, create=create)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "home").exists()


def test_a_place_that_takes_no_ledger_is_told_before_there_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with importlib.import_module("benchmarks.stores.qdrant").serve(tmp_path) as url:
        with pytest.raises(errors.ReadOnly, match=r"ledger's folder.*NEAREST_LEDGER"):
            open_kb(url, ledger=tmp_path / "file")
        with pytest.raises(errors.NotACollection):
            nearest.connect(url)


def test_records_without_a_ledger_are_told(url: str, tmp_path: Path) -> None:
    schema = Schema(vectors={"dense": VectorSpec(4)})
    with nearest.connect(url, schema) as store:
        store.upsert([Record("a", {"dense": [1, 0, 0, 0]}, {})])
    for create in (True, False):
        with pytest.raises(errors.NotACollection, match=r"1 records \(dense: 4 dimensions\).*nearest\.connect") as told:
            open_kb(url, create=create)
        assert told.value.context == {"records": 1, "dimensions": {"dense": 4}}
    with nearest.connect(url) as store:
        assert store.count() == 1
