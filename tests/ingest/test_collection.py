"""The collection as a user meets it: adding, updating, removing, finding, refusing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import nearest
from nearest import errors
from nearest.app import Collection
from nearest.contract import Chunk, Document, Float32, FusionMethod, Hit, Mark, Query, Record
from nearest.filters import parse
from nearest.ingest import Progress
from tests.fakes import HashEmbedder, LineChunker


def open_kb(folder: Path | str, **options: Any) -> Collection:
    return nearest.open(folder, **{"embedder": HashEmbedder(), "chunker": LineChunker(), **options})


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[Collection]:
    with open_kb(tmp_path / "kb") as kb:
        yield kb


def docs(*ids: str, text: str = "first line of {}\nsecond line of {}\n", **metadata: Any) -> list[Document]:
    return [Document(i, text.replace("{}", i), metadata) for i in ids]


def stored(kb: Collection) -> list[Record]:
    return list(kb.store.scan_all())


def test_added_documents_are_found_and_given_back(kb: Collection) -> None:
    report = kb.add(docs("a", "b", year=2024, tags=["x", None]))
    assert (report.added, report.updated, report.unchanged, report.removed, report.failed) == (2, 0, 0, 0, [])
    assert report.chunks == 4
    hit = kb.search("second line of b\n", k=1, mode="dense")[0]
    assert (hit.id, hit.document_id, hit.text) == ("b#1", "b", "second line of b\n")
    assert hit.metadata == {"year": 2024, "tags": ["x", None]}
    assert hit.score == pytest.approx(1.0, abs=1e-5)
    assert hit.explain == {"mode": "dense", "dense": {"rank": 1, "score": hit.score}}
    assert kb.search("second line of b\n", k=1, explain=False)[0].explain is None
    assert kb.get("a") == docs("a", year=2024, tags=["x", None])[0]
    assert kb.get("nobody") is None
    assert kb.count() == 2
    assert {r.id for r in kb.scan()} == {"a#0", "a#1", "b#0", "b#1"}


def test_chunks_know_their_page_and_headings(kb: Collection) -> None:
    marks = (Mark(4, 1, ("Top",)), Mark(8, 2, ("Top", "Über")), Mark(12))
    document = Document("a", "one\ntwo\nsix\nten\n", {}, marks)
    kb.add([document])
    places = {r.text: (r.page, list(r.headings)) for r in kb.scan()}
    assert places == {
        "one\n": (None, []), "two\n": (1, ["Top"]), "six\n": (2, ["Top", "Über"]), "ten\n": (None, []),
    }  # fmt: skip
    (hit,) = kb.search("six\n", k=1, mode="dense")
    assert (hit.page, hit.headings) == (2, ["Top", "Über"])
    assert kb.get("a") == document
    assert kb.add([document]).unchanged == 1
    assert kb.add([Document("a", document.text, {}, (Mark(0, 7),))]).updated == 1
    assert {r.page for r in kb.scan()} == {7}


@pytest.mark.parametrize(
    "marks",
    [(Mark(3), Mark(2)), (Mark(-1),), (Mark(0, 0),), (Mark(0, headings=(1,)),), (Mark(0, headings=("\ud800",)),)],  # type: ignore[arg-type]
)
def test_wrong_marks_are_refused(kb: Collection, marks: tuple[Mark, ...]) -> None:
    with pytest.raises(errors.InvalidDocument, match=r"marks\["):
        kb.add([Document("a", "text\n", {}, marks)])


def test_unchanged_documents_are_not_embedded_again(tmp_path: Path) -> None:
    model = HashEmbedder()
    with open_kb(tmp_path / "kb", embedder=model) as kb:
        kb.add(docs("a", "b"))
        model.embedded.clear()
        report = kb.add(docs("a", "b"))
    assert (report.added, report.updated, report.unchanged) == (0, 0, 2)
    assert model.embedded == []


@pytest.mark.parametrize(
    "changed",
    [
        Document("a", "first line of a\nanother\nand more\n"),
        Document("a", "first line of a\nsecond line of a\n", {"n": 1}),
    ],
    ids=["text", "metadata"],
)
def test_an_update_replaces_every_chunk(kb: Collection, changed: Document) -> None:
    kb.add(docs("a", "b"))
    report = kb.add([changed])
    assert (report.added, report.updated, report.unchanged) == (0, 1, 0)
    assert kb.get("a") == changed
    assert {r.document_id for r in stored(kb)} == {"a", "b"}
    assert len(stored(kb)) == 2 + changed.text.count("\n")
    assert all(r.metadata == changed.metadata for r in stored(kb) if r.document_id == "a")


def test_unchanged_chunks_of_a_changed_document_stay_the_same_records(kb: Collection) -> None:
    kb.add(docs("a"))
    before = {r.id for r in stored(kb)}
    kb.add([Document("a", "first line of a\nchanged\n")])
    after = {r.id for r in stored(kb)}
    assert len(before & after) == 1


def test_the_last_of_two_equal_ids_wins_also_when_it_equals_what_was_there(kb: Collection) -> None:
    one, two = Document("a", "one\n"), Document("a", "two\n")
    report = kb.add([one, two])
    assert (report.added, report.updated) == (1, 1)
    assert kb.get("a") == two
    kb.add([one, two, one])
    assert kb.get("a") == one
    assert len(stored(kb)) == 1


def test_delete_by_id_and_by_filter(kb: Collection) -> None:
    kb.add(docs("a", year=2020) + docs("b", "c", year=2024))
    assert kb.delete(["a", "nobody"]) == 1
    assert kb.delete(where={"year": {"$gte": 2024}}) == 2
    assert (kb.count(), stored(kb)) == (0, [])
    assert kb.delete(["a"]) == 0


@pytest.mark.parametrize("arguments", [{}, {"ids": ["a"], "where": {"x": 1}}, {"ids": "a"}, {"where": {}}])
def test_delete_refuses_what_is_ambiguous(kb: Collection, arguments: dict[str, Any]) -> None:
    kb.add(docs("a"))
    with pytest.raises(errors.InvalidInput):
        kb.delete(**arguments)
    assert kb.count() == 1


def test_count_and_where_are_about_documents_and_their_metadata(kb: Collection) -> None:
    kb.add(docs("a", year=2020, text="x\ny\nz\n") + docs("b", year=2024) + docs("c"))
    assert kb.count(where={"year": {"$lt": 2024}}) == 1
    assert kb.count(where={"year": {"$exists": False}}) == 1
    assert kb.count(where={"text": "x"}) == 0, "the payload's own keys are not metadata"
    assert {h.document_id for h in kb.search("anything", k=10, mode="dense", where={"year": 2020})} == {"a"}


def test_documents_of_a_collection_whose_passages_have_no_first_are_counted_by_number(
    kb: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.add(docs("a", year=2020, text="x\ny\nz\n") + docs("b", year=2024))
    records = [replace(r, payload={k: v for k, v in r.payload.items() if k != "first"})
               for r in kb.store.scan(with_vectors=True).records]  # fmt: skip
    kb.store.upsert(records)
    assert kb.count(where={"year": 2020}) == 0
    monkeypatch.setattr(kb.store, "schema", replace(kb.store.schema, fields={"chunk": "integer"}))
    assert kb.count(where={"year": 2020}) == 1


def test_many_queries_go_to_the_store_in_parts(kb: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    kb.add(docs(*"abcdefgh"))
    asked = [f"second line of {name}\n" for name in "abcdefgh"]
    alone = [[hit.id for hit in kb.search(text)] for text in asked]
    sizes: list[int] = []
    search = kb.store.search_many

    def counted(queries: list[Query]) -> list[list[Hit]]:
        sizes.append(len(queries))
        return search(queries)

    monkeypatch.setattr(kb.store, "search_many", counted)
    monkeypatch.setattr("nearest.search.search._TOGETHER", 3)
    assert [[hit.id for hit in hits] for hits in kb.search_many(asked)] == alone
    assert sizes == [3, 3, 2]


class Streaming(HashEmbedder):
    """Its queries come in parts, the last first; it knows how many it made."""

    def stream_queries(
        self, texts: Sequence[str], *, truncate: bool = False
    ) -> Iterator[tuple[Sequence[int], Float32]]:
        for start in reversed(range(0, len(texts), 2)):
            rows = range(start, min(start + 2, len(texts)))
            yield rows, np.stack([self.embed_query(texts[i]) for i in rows])


def test_what_was_embedded_is_searched_while_the_rest_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearest.search.search._WORTH", 3)
    asked = [f"second line of {name}\n" for name in "abcdefgh"]
    model = Streaming()
    with open_kb(tmp_path / "kb", embedder=model) as kb:
        kb.add(docs(*"abcdefgh"))
        alone = [kb.search(text) for text in asked]
        seen: list[tuple[int, int]] = []
        search = kb.store.search_many

        def counted(queries: list[Query]) -> list[list[Hit]]:
            seen.append((len(queries), len(model.embedded)))
            return search(queries)

        monkeypatch.setattr(kb.store, "search_many", counted)
        model.embedded.clear()
        assert kb.search_many(asked) == alone
        assert seen == [(4, 4), (4, 8)]
        seen.clear()
        model.embedded.clear()
        given = kb.search_many(asked, vectors=[model.embed_query(text) for text in asked])
        assert given == alone
        assert [size for size, _ in seen] == [8]


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_every_wording_is_embedded_before_its_query_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    monkeypatch.setattr("nearest.search.search._WORTH", 1)
    answers = []
    for model in (HashEmbedder(), Streaming()):
        with open_kb(tmp_path / type(model).__name__, embedder=model) as kb:
            kb.add(docs(*"abcdefgh"))
            answers.append(
                kb.search("first line of a\n", mode=mode, expand=lambda text: ["second line of h\n", *"xyz"])
            )
    assert len(answers[0]) == 10
    assert [(hit.id, hit.score) for hit in answers[0]] == [(hit.id, hit.score) for hit in answers[1]]
    assert answers[1].explain is not None
    assert set(answers[1].explain["seconds"]) == {"embed", "retrieve"}


def test_hybrid_search_explains_its_parts(kb: Collection) -> None:
    kb.add(docs(*"abcdefgh"))
    hits = kb.search("second line of e\n", k=3)
    assert hits[0].document_id == "e"
    assert hits[0].explain is not None
    assert hits[0].explain["mode"] == "hybrid"
    assert hits[0].explain["dense"]["rank"] == 1
    assert hits[0].explain["lexical"]["rank"] >= 1
    assert hits == sorted(hits, key=lambda h: -h.score)


@pytest.mark.parametrize("fusion", get_args(FusionMethod))
def test_search_many_equals_single_searches(kb: Collection, fusion: Any) -> None:
    kb.add(docs(*"abcdefgh"))
    queries = ["second line of e\n", "first line of b\n"]
    assert kb.search_many(queries, k=4, fusion=fusion) == [kb.search(q, k=4, fusion=fusion) for q in queries]
    assert kb.search_many([]) == []


def test_a_given_vector_is_used_instead_of_the_model(tmp_path: Path) -> None:
    model = HashEmbedder()
    with open_kb(tmp_path / "kb", embedder=model) as kb:
        kb.add(docs("a", "b"))
        vector = model.embed_query("first line of b\n")
        model.embedded.clear()
        assert kb.search(vector=vector, k=1)[0].document_id == "b"
        assert model.embedded == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": ""},
        {"query": "  \n"},
        {"query": None},
        {"query": 5},
        {"query": "x", "k": 0},
        {"query": "x", "k": -1},
        {"query": "x", "k": True},
        {"query": "x", "k": 1.5},
        {"query": "x", "mode": "magic"},
        {"query": "x", "fusion": "magic"},
        {"query": "x", "candidates": 0},
        {"query": "x", "vector": [1.0, 2.0]},
        {"query": "x", "vector": [float("nan")] * 16},
        {"query": "x", "vector": [0.0] * 16},
        {"query": "x", "where": {"year": {"$near": 3}}},
        {"query": "x", "where": {}},
        {"query": None, "vector": [1.0] * 16, "mode": "lexical"},
    ],
    ids=str,
)
def test_a_wrong_search_is_refused(kb: Collection, arguments: dict[str, Any]) -> None:
    kb.add(docs("a"))
    with pytest.raises(errors.InvalidInput):
        kb.search(**arguments)


BAD_DOCUMENTS = {
    "empty text": Document("x", ""),
    "blank text": Document("x", " \n"),
    "text of another type": Document("x", 5),  # type: ignore[arg-type]
    "lone surrogate": Document("x", "\ud800"),
    "empty id": Document("", "text"),
    "long id": Document("x" * 513, "text"),
    "metadata not an object": Document("x", "text", ["a"]),  # type: ignore[arg-type]
    "metadata not JSON": Document("x", "text", {"a": object()}),
    "metadata NaN": Document("x", "text", {"a": float("nan")}),
    "metadata key": Document("x", "text", {1: "a"}),  # type: ignore[dict-item]
    "integer over 64 bits": Document("x", "text", {"a": 2**64}),
    "declared field of another kind": Document("x", "text", {"year": "2024"}),
}


@pytest.mark.parametrize("bad", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS.keys())
def test_a_bad_document_in_a_list_is_refused_before_anything_is_written(tmp_path: Path, bad: Document) -> None:
    with open_kb(tmp_path / "kb", fields={"year": "integer"}) as kb:
        with pytest.raises(errors.InvalidDocument, match=r"documents\[1\]"):
            kb.add([*docs("a"), bad])
        assert (kb.count(), stored(kb)) == (0, [])
        report = kb.add(iter([*docs("a"), bad, *docs("b")]))
        assert (report.added, len(report.failed)) == (2, 1)
        assert kb.count() == 2


def test_an_id_of_512_characters_is_fine(kb: Collection) -> None:
    long = "ü" * 512
    kb.add([Document(long, "text\n")])
    assert kb.search("text\n", k=1)[0].document_id == long


def test_a_document_the_model_refuses_is_reported_and_the_others_are_there(tmp_path: Path) -> None:
    model = HashEmbedder(max_words=5)
    with open_kb(tmp_path / "kb", embedder=model) as kb:
        batch = [*docs("a"), Document("long", "one two three four five six\n"), *docs("b")]
        report = kb.add(batch)
        assert (report.added, [f.id for f in report.failed]) == (2, ["long"])
        assert "limit" in report.failed[0].reason
        assert kb.info()["failed"].keys() == {"long"}
        again = kb.add(batch, truncate=True)
        assert (again.added, again.unchanged, again.truncated, again.failed) == (1, 2, 1, [])
        assert kb.info()["failed"] == {}


def test_a_long_text_is_pooled_where_that_is_asked_for(tmp_path: Path) -> None:
    model = HashEmbedder(max_words=40)  # windows of 24
    long, short = " ".join(f"word{i}" for i in range(60)), "a short one"
    batch = [Document("long", long), Document("short", short)]
    with open_kb(tmp_path / "kb", embedder=model, chunker=WideChunker()) as kb:
        with pytest.raises(errors.InvalidInput, match="one of them"):
            kb.add(batch, pool=True, truncate=True)
        report = kb.add(batch, pool=True)
        assert (report.added, report.pooled, report.truncated, report.failed) == (2, 1, 0, [])
        vectors = {r.document_id: r.vectors["dense"] for r in kb.store.scan_all(with_vectors=True)}
        windows = [text for text in model.embedded if text in long and text != short]
        assert "".join(windows) == long
        assert max(len(w.split()) for w in windows) <= 24
        mean = sum(len(w) * model.embed_query(w) for w in windows)
        np.testing.assert_allclose(vectors["long"], mean / np.linalg.norm(mean), atol=1e-5)
        np.testing.assert_allclose(vectors["short"], model.embed_query(short), atol=1e-5)
        assert kb.get("long") == batch[0]


def test_another_model_or_chunker_or_field_is_refused(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb", fields={"year": "integer"}) as kb:
        kb.add(docs("a"))
    with pytest.raises(errors.ModelMismatch, match="fake:other"):
        open_kb(tmp_path / "kb", embedder=HashEmbedder(name="fake:other"))
    with open_kb(tmp_path / "kb", embedder=HashEmbedder(dimension=32)) as kb, pytest.raises(errors.ModelMismatch):
        kb.add(docs("b"))
    with pytest.raises(errors.SchemaMismatch, match="fields"):
        open_kb(tmp_path / "kb", fields={"year": "float"})
    with pytest.raises(errors.SchemaMismatch, match="language"):
        open_kb(tmp_path / "kb", language="german")
    with open_kb(tmp_path / "kb", fields={"year": "integer"}) as kb:
        assert kb.count() == 1


def test_places_that_are_not_collections(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "full", tmp_path / "file"):
        with pytest.raises(errors.NotACollection):
            open_kb(place)
    with pytest.raises(errors.NotACollection, match="no collection"):
        nearest.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["letter.txt"]
    for wrong in ("", "nowhere:x"):
        with pytest.raises(errors.InvalidInput):
            nearest.open(wrong)


def test_an_open_collection_is_locked_by_name(tmp_path: Path, kb: Collection) -> None:
    with pytest.raises(errors.CollectionLocked, match=str(tmp_path / "kb")) as caught:
        open_kb(tmp_path / "kb")
    assert caught.value.retryable
    kb.close()
    kb.close()
    open_kb(tmp_path / "kb").close()


def test_an_interrupted_creation_is_taken_up_with_other_settings(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb"):
        pass
    (tmp_path / "kb" / "ledger.db").unlink()
    with open_kb(tmp_path / "kb", language="german") as kb:
        assert kb.add(docs("a")).added == 1


def test_a_store_without_its_ledger_is_not_taken_over(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb") as kb:
        kb.add(docs("a"))
    for file in (tmp_path / "kb").glob("ledger.db*"):
        file.unlink()
    with pytest.raises(errors.NotACollection, match="ledger"):
        open_kb(tmp_path / "kb")
    with nearest.connect(f"edge:{tmp_path / 'kb' / 'store'}") as store:
        assert store.count() == 2


def test_a_crash_after_any_step_is_repaired_on_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    for i, (where, step, done) in enumerate(
        [("store", "upsert", False), ("ledger", "commit", False), ("store", "delete", True), ("ledger", "settle", True)]
    ):
        folder = tmp_path / str(i)
        with open_kb(folder) as kb:
            kb.add(docs("a", "gone"))
            with monkeypatch.context() as patch:
                patch.setattr(getattr(kb, where), step, crash)
                with pytest.raises(Crash):
                    kb.add([Document("a", "new\n"), *docs("b")])
        with open_kb(folder) as kb:
            assert bool(kb.repaired), step
            assert kb.get("a") == (Document("a", "new\n") if done else docs("a")[0])
            assert (kb.get("b") is not None) == done
            accounted = {r for rs in kb.ledger.record_ids(["a", "b", "gone"]).values() for r in rs}
            assert {r.id for r in stored(kb)} == accounted
            assert kb.add([Document("a", "new\n"), *docs("b")]).failed == []
        with open_kb(folder) as kb:
            assert kb.repaired == []


def test_a_failed_write_is_repaired_by_the_next_one(kb: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise errors.DiskFull("the disk is full")

    kb.add(docs("a"))
    with monkeypatch.context() as patch:
        patch.setattr(kb.ledger, "commit", full)
        with pytest.raises(errors.DiskFull):
            kb.add([Document("a", "new\n")])
    assert kb.get("a") == docs("a")[0]
    assert {h.document_id for h in kb.search("new\n", k=5)} == {"a"}
    assert all("new" not in h.text for h in kb.search("new\n", k=5))
    assert kb.add([Document("a", "new\n")]).updated == 1
    assert [r.text for r in stored(kb)] == ["new\n"]


def refusing(kb: Collection, patch: pytest.MonkeyPatch, how: str) -> None:
    """The collection's store takes no record with the word `forbidden`; how: what it says of a call with one."""
    upsert = kb.store._upsert

    def refused(record: Record) -> bool:
        return "forbidden" in record.payload["text"]

    def picky(records: list[Record]) -> None:
        bad = {r.id: errors.InvalidRecord(f"record {r.id!r}: too large") for r in records if refused(r)}
        if bad and how == "nothing":
            raise next(iter(bad.values()))
        upsert([r for r in records if r.id not in bad])
        if bad and how == "every":  # a request is refused as a whole, and its records are not told apart
            raise errors.BatchFailed.of(dict.fromkeys((r.id for r in records), errors.StorageError("refused")), 9)
        if bad:
            raise errors.BatchFailed.of(bad, len(records))

    patch.setattr(kb.store, "_upsert", picky)


def accounted(kb: Collection, *ids: str) -> bool:
    """Whether the store holds what the ledger knows, of these documents and of no other."""
    return {r.id for r in stored(kb)} == {r for some in kb.ledger.record_ids(ids).values() for r in some}


@pytest.mark.parametrize("how", ["nothing", "one", "every"])
def test_a_document_the_store_refuses_is_reported_and_the_others_are_there(
    kb: Collection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    kb.add(docs("old", "also"))
    bad = "fine line\nforbidden line\n"
    documents = [
        *docs("a"),
        Document("new", bad),
        *docs("b"),
        Document("old", bad),
        Document("also", "x\n"),
        *docs("c"),
    ]
    with monkeypatch.context() as patch:
        refusing(kb, patch, how)
        for added in ((3, 1, 0), (0, 0, 4)):  # and again by the next run, which has nothing else to do
            report = kb.add(documents)
            assert (report.added, report.updated, report.unchanged) == added
            reason = "refused" if how == "every" else "chunk 1: too large"
            assert [(f.id, f.reason) for f in report.failed] == [("new", reason), ("old", reason)]
            assert kb.info()["failed"] == {"new": reason, "old": reason}
            assert kb.get("old") == docs("old")[0]
            assert kb.get("new") is None
            assert kb.count() == 5
            assert accounted(kb, "a", "b", "c", "old", "also")
            assert kb.ledger.pending() == []
    report = kb.add(documents)
    assert (report.added, report.updated, report.unchanged, report.failed) == (1, 1, 4, [])
    assert kb.info()["failed"] == {}


def test_a_batch_that_the_connection_lost_stops_the_run(kb: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(records: list[Record]) -> None:
        failed = {records[0].id: errors.InvalidRecord("no"), records[1].id: errors.Throttled("asked too much")}
        raise errors.BatchFailed.of(failed, len(records))

    with monkeypatch.context() as patch:
        patch.setattr(kb.store, "_upsert", lost)
        with pytest.raises(errors.BatchFailed):
            kb.add(docs("a", "b"))
    assert kb.count() == 0
    assert kb.add(docs("a", "b")).added == 2


def test_a_crash_while_a_refused_document_is_undone_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    for i, (where, step) in enumerate(
        [("store", "delete"), ("store", "flush"), ("ledger", "undo"), ("ledger", "intend"), ("ledger", "commit")]
    ):
        folder = tmp_path / str(i)
        with open_kb(folder) as kb:
            kb.add(docs("old"))
            with monkeypatch.context() as patch:
                refusing(kb, patch, "one")
                intend = kb.ledger.intend

                def crash(*_: object, **__: object) -> None:
                    raise Crash

                def armed(
                    changes: Any, kb: Any = kb, patch: Any = patch, intend: Any = intend, at: Any = (where, step)
                ) -> Any:
                    intents = intend(changes)
                    patch.setattr(getattr(kb, at[0]), at[1], crash)
                    return intents

                patch.setattr(kb.ledger, "intend", armed)
                with pytest.raises(Crash):
                    kb.add([*docs("a"), Document("old", "fine\nforbidden\n")])
        with open_kb(folder) as kb:
            assert kb.get("old") == docs("old")[0]
            assert kb.get("a") is None
            assert accounted(kb, "old")
            assert kb.add(docs("a")).added == 1


def test_a_search_during_updates_sees_exactly_one_version(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb") as kb:
        names = [f"d{i}" for i in range(6)]
        kb.add([Document(n, f"{n} fixed\n", {"v": 0}) for n in names])
        stop = threading.Event()
        trouble: list[str] = []

        def update() -> None:
            for version in range(1, 10):
                kb.add([Document(n, f"{n} fixed\n", {"v": version}) for n in names])
            stop.set()

        thread = threading.Thread(target=update)
        thread.start()
        seen: set[int] = set()
        while not stop.is_set():
            hits = kb.search("d4 fixed\n", k=20, mode="dense")
            ids = [h.document_id for h in hits]
            seen |= {h.metadata["v"] for h in hits}
            if sorted(ids, key=str) != sorted(names):
                trouble.append(str(sorted(ids, key=str)))
                break
        thread.join()
        assert trouble == []
        assert len(seen) > 1, "no update was seen to happen"


def test_a_stop_keeps_what_was_committed_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb") as kb:
        written = threading.Event()

        def progress(at: Progress) -> None:
            if at.documents:
                written.set()

        def stream() -> Iterator[Document]:
            for i in range(100_000):
                if i == 1500:
                    assert written.wait(30)
                    raise KeyboardInterrupt
                yield Document(f"d{i}", f"text {i}\n")

        with pytest.raises(KeyboardInterrupt):
            kb.add(stream(), progress=progress)
        first = kb.count()
        assert 0 < first < 1500
        assert kb.ledger.pending() == []
        report = kb.add([Document(f"d{i}", f"text {i}\n") for i in range(1500)])
        assert (report.unchanged, report.added) == (first, 1500 - first)


class WideChunker(LineChunker):
    settings = {"wide": True}  # noqa: RUF012

    def chunk(self, text: str) -> list[Chunk]:
        return [Chunk(text, 0, len(text), 0)]


def test_an_own_chunker_must_be_given_again(tmp_path: Path) -> None:
    with open_kb(tmp_path / "kb") as kb:
        kb.add(docs("a"))
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder()) as kb:
        assert kb.search("first line of a\n", k=1)[0].document_id == "a"
        with pytest.raises(errors.SchemaMismatch, match="chunker"):
            kb.add(docs("b"))
    with open_kb(tmp_path / "kb", chunker=WideChunker()) as kb, pytest.raises(errors.SchemaMismatch, match="chunker"):
        kb.add(docs("b"))


def test_memory_collections_work_alike() -> None:
    with open_kb("memory:") as kb:
        kb.add(docs("a", "b"))
        kb.add([Document("a", "changed line\n")])
        assert kb.search("changed", mode="lexical", k=1)[0].document_id == "a"
        assert kb.delete(["b"]) == 1
        assert kb.count() == 1


def test_a_parsed_filter_is_taken_as_it_is(kb: Collection) -> None:
    kb.add(docs("a", year=1) + docs("b", year=2))
    assert kb.count(where=parse({"year": 2})) == 1


def test_connect_gives_a_store_for_own_vectors(tmp_path: Path) -> None:
    schema = nearest.Schema(vectors={"dense": nearest.VectorSpec(3)})
    with nearest.connect(f"edge:{tmp_path / 'own'}", schema) as store:
        store.upsert([Record("x", {"dense": np.array([1.0, 0, 0])}, {"n": 1})])
    with nearest.connect(f"edge:{tmp_path / 'own'}") as store:
        assert store.get(["x"])[0].payload == {"n": 1}
