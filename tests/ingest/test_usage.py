"""What embedding costs: counted, told before, and held to a budget; what a provider answered is never lost."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import cli, embedders
from nearest.contract import Document, Float32, Usage
from nearest.embedders import _cache
from nearest.errors import BudgetExceeded, ConnectionFailed, InvalidInput, ModelError, TextsFailed, Throttled
from nearest.ingest import vectors
from tests.fakes import HashEmbedder, LineChunker

DOCUMENTS = [Document(f"d{i:04}", "\n".join(f"line {i} {j} of a document" for j in range(4))) for i in range(300)]
BOILERPLATE = "the same words under every page\n"


class Priced(HashEmbedder):
    """Costs a dollar a million tokens, a word a token; refuses texts with a mark, and goes away when told."""

    price = 1.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.away_after = 10**9
        self.asked = 0

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        self.asked += 1
        vectors = super().embed_documents(texts, truncate=truncate)
        tokens = sum(len(text.split()) for text in texts)
        self.usage += Usage(len(texts), 0, 0, 1, tokens, tokens / 1e6)
        failed: dict[int, nearest.NearestError] = {
            i: ModelError("refused") for i, text in enumerate(texts) if "forbidden" in text
        }
        if self.asked > self.away_after:
            failed |= {i: Throttled("asked too much") for i in range(len(texts) // 2, len(texts))}
        if failed:
            vectors[list(failed)] = np.nan
            raise TextsFailed(failed, vectors)
        return vectors


@pytest.fixture
def embedder() -> Priced:
    return Priced()


@pytest.fixture
def kb(tmp_path: Path, embedder: Priced) -> Iterator[nearest.Collection]:
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker=LineChunker()) as opened:
        yield opened


def test_a_run_tells_what_it_used_and_the_ledger_keeps_it(kb: nearest.Collection, embedder: Priced) -> None:
    first = kb.add(DOCUMENTS[:100])
    assert (first.usage.texts, first.usage.tokens) == (400, 400 * 6)
    assert first.usage.dollars == pytest.approx(0.0024)
    second = kb.add(DOCUMENTS[:150])
    assert second.usage.texts == 200
    kept = kb.info()["usage"][embedder.name]
    assert (kept["runs"], kept["texts"], kept["tokens"]) == (2, 600, 3600)
    assert kept["dollars"] == pytest.approx(0.0036)
    assert kb.add(DOCUMENTS[:150]).usage == Usage()


def test_equal_texts_of_a_run_are_embedded_once(kb: nearest.Collection, embedder: Priced) -> None:
    documents = [Document(f"d{i}", f"{BOILERPLATE}page {i}\n") for i in range(600)]
    report = kb.add(documents)
    assert report.chunks == 1200
    assert len(embedder.embedded) == 601
    assert kb.store.count() == 1200


def test_equal_texts_far_apart_and_of_several_paths_are_embedded_once(
    kb: nearest.Collection, embedder: Priced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors.Vectors.__init__, "__defaults__", (64 * 100,))  # vectors of 16 numbers
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for i in range(400):
            (tmp_path / folder / f"{i}.txt").write_text(f"{folder} {i} of its own\nline {i} of both\n")
    (tmp_path / "three.txt").write_text("one 0 of its own\nline 1 of both\n")
    report = kb.add_files([tmp_path / "one", tmp_path / "two", tmp_path / "three.txt"])
    assert (report.added, report.chunks) == (801, 1602)
    assert len(embedder.embedded) == len(set(embedder.embedded)) == 1200
    (hit,) = kb.search("line 1 of both\n", k=1, mode="dense")
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_remembered_is_embedded_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    some = {bytes([i]): np.full(4, i, np.float32) for i in range(100)}
    kept = vectors.Vectors(in_memory=160)
    for key, row in some.items():
        kept.put({key: row})
    assert {key: row.tolist() for key, row in kept.get(list(some)).items()} == {k: r.tolist() for k, r in some.items()}
    assert kept.get([b"other"]) == {}
    kept.close()
    assert kept.get(list(some)) == {}

    def refused() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(vectors, "_opened", refused)
    full = vectors.Vectors(in_memory=160)
    for key, row in some.items():
        full.put({key: row})
    assert 1 <= len(full.get(list(some))) <= 10
    assert caplog.text.count("disk is full") == 1


def test_the_last_of_the_disk_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    some = {bytes([i]): np.full(4, i, np.float32) for i in range(100)}
    kept = vectors.Vectors(in_memory=160)
    kept.put(some)
    assert len(kept.get(list(some))) == 100
    assert list(tmp_path.iterdir()) == []  # nobody has to clear it away
    monkeypatch.setattr(vectors, "_SPARE", 2**80)
    kept.put({bytes([i, i]): np.zeros(4, np.float32) for i in range(100)})
    assert len(kept.get(list(some))) == 50  # those that were written before
    assert caplog.text.count("MiB free") == 1


@pytest.mark.parametrize("pool", [False, True])
def test_a_refused_text_costs_its_own_document_alone_and_nothing_is_asked_twice(
    kb: nearest.Collection, embedder: Priced, pool: bool
) -> None:
    documents = [*DOCUMENTS[:50], Document("bad", "good line\nforbidden line"), *DOCUMENTS[50:100]]
    report = kb.add(documents, pool=pool)
    assert [failure.id for failure in report.failed] == ["bad"]
    assert "refused" in report.failed[0].reason
    assert report.added == 100
    assert len(embedder.embedded) == len(set(embedder.embedded)) == 402


def test_what_a_provider_answered_before_it_went_away_is_written(kb: nearest.Collection, embedder: Priced) -> None:
    embedder.away_after = 2
    with pytest.raises(ConnectionFailed, match="asked too much"):
        kb.add(iter(DOCUMENTS))
    assert 128 < kb.count() < 300  # two groups of 64 documents, and the half of a third
    embedder.away_after = 10**9
    report = kb.add(DOCUMENTS)
    assert report.unchanged + report.added == 300
    assert kb.count() == 300


def test_a_budget_stops_before_it_is_exceeded(kb: nearest.Collection, embedder: Priced) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        kb.add(DOCUMENTS, budget=0.004)
    assert 0 < embedder.usage.dollars <= 0.004
    assert caught.value.context["spent"] == pytest.approx(embedder.usage.dollars)
    finished = kb.count()
    assert 0 < finished < 300
    assert kb.info()["usage"][embedder.name]["dollars"] == pytest.approx(embedder.usage.dollars)
    report = kb.add(DOCUMENTS, budget=1.0)
    assert (report.unchanged, report.added) == (finished, 300 - finished)
    with pytest.raises(InvalidInput, match="budget"):
        kb.add(DOCUMENTS, budget=-1.0)
    embedder.price = None  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="price"):
        kb.add(DOCUMENTS, budget=1.0)


@pytest.mark.parametrize("chunker", ["semantic:size=8", "semantic:size=20,prefix=title"])
def test_a_budget_covers_the_sentences_that_a_chunker_embeds(tmp_path: Path, embedder: Priced, chunker: str) -> None:
    words = "alpha beta gamma delta epsilon"
    documents = [Document(f"d{i:03}", " ".join(f"Word{i} {j} {words}." for j in range(6))) for i in range(200)]
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker=chunker) as kb:
        long = Document("long", " ".join(f"Sentence {i} {words}." for i in range(500)))
        with pytest.raises(BudgetExceeded, match="500 texts"):
            kb.add([long], budget=0.002)
        assert embedder.asked == 0  # its sentences alone would have cost more
        with pytest.raises(BudgetExceeded, match="500 texts"):
            kb.add([*documents[:3], long], budget=0.002)
        assert kb.count() == 3  # what was cut before it is not lost
        before = embedder.usage.dollars
        with pytest.raises(BudgetExceeded):  # the sentences fit, and not all of the chunks
            kb.add(documents, budget=0.0135)
        assert embedder.usage.dollars - before <= 0.0135
        finished = kb.count()
        assert 3 < finished < 200
        report = kb.add(documents, budget=1.0)
        assert (report.unchanged, report.added) == (finished, 200 - finished)


def test_sentences_of_many_documents_are_asked_for_together(tmp_path: Path, embedder: Priced) -> None:
    documents = [Document(f"d{i}", " ".join(f"Sentence {j} of {i} is here." for j in range(6))) for i in range(50)]
    documents[7] = Document("d7", "One sentence is here. Another is forbidden here. And a third one.")
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker="semantic:size=20") as kb:
        report = kb.add(documents)
        assert [failure.id for failure in report.failed] == ["d7"]
        assert report.added == 49
        assert embedder.asked < 10, "not once a document"
        assert kb.add(documents).unchanged == 49
        one = [hit.text for hit in kb.search("Sentence", k=300, mode="dense")]
    with nearest.open(tmp_path / "other", embedder=HashEmbedder(), chunker="semantic:size=20") as kb:
        for document in documents:
            if document.id != "d7":
                kb.add([document])
        assert sorted(one) == sorted(hit.text for hit in kb.search("Sentence", k=300, mode="dense"))


def test_what_is_cached_costs_nothing(tmp_path: Path) -> None:
    cache = _cache.connect(tmp_path / "vectors.db")
    for name, cached in (("one", 0), ("two", 1200)):
        embedder = _cache.Cached(Priced(), cache)
        with nearest.open(tmp_path / name, embedder=embedder, chunker=LineChunker()) as kb:
            report = kb.add(DOCUMENTS, budget=0.01 if not cached else 0.0)
            assert (report.usage.texts, report.usage.cached) == (1200, cached)
            assert (report.usage.dollars == 0) == bool(cached)


def test_a_plan_is_what_adding_then_does(tmp_path: Path, kb: nearest.Collection, embedder: Priced) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"{BOILERPLATE}page {i} has words\n")
    (folder / "bad.txt").write_bytes(bytes(range(256)) * 10)
    plan = kb.plan_files(folder)
    assert not embedder.embedded
    assert kb.count() == 0
    assert kb.info()["failed"] == {}
    assert plan.seconds is None
    report = kb.add_files(folder)
    assert (plan.documents, plan.failed, plan.chunks) == (report.added, report.failed, report.chunks)
    assert [failure.id for failure in plan.failed] == ["docs/bad.txt"]
    assert plan.usage.texts == report.usage.texts == 21
    assert plan.usage.tokens == report.usage.tokens
    assert plan.usage.dollars == pytest.approx(report.usage.dollars)
    (folder / "20.txt").write_text("one more page\n")
    again = kb.plan_files(folder)
    assert (again.documents, again.unchanged) == (1, 20)
    assert again.seconds is not None
    (folder / "20.txt").unlink()
    (folder / "19.txt").unlink()
    kb.plan_files(folder)
    assert kb.count() == 20  # nothing is removed either


def test_a_plan_tells_whether_the_budget_suffices(tmp_path: Path, kb: nearest.Collection, embedder: Priced) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i} has six words here\n" for i in range(100)))
    assert (kb.plan_files(tmp_path / "a.txt").budget, kb.plan_files(tmp_path / "a.txt").over) == (None, False)
    for budget, over in ((0.0005, True), (0.0006, False)):
        assert kb.plan_files(tmp_path / "a.txt", budget=budget).over == over
    with pytest.raises(InvalidInput, match="budget is dollars"):
        kb.plan_files(tmp_path / "a.txt", budget=-1.0)
    embedder.price = None  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="no budget can be kept"):
        kb.plan_files(tmp_path / "a.txt", budget=1.0)


def test_a_plan_names_documents_whose_ids_are_taken(tmp_path: Path, kb: nearest.Collection) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "docs").mkdir(parents=True)
        (tmp_path / name / "docs" / "a.txt").write_text(f"of {name}\n")
    kb.add_files(tmp_path / "one" / "docs")
    plan = kb.plan_files(tmp_path / "two" / "docs")
    assert plan.failed == kb.add_files(tmp_path / "two" / "docs").failed
    assert "the id is taken" in plan.failed[0].reason


class Asked(Priced):
    """Counts queries as well."""

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        row: Float32 = HashEmbedder.embed_documents(self, [text])[0]
        self.usage += Usage(1, 0, 0, 1, 2, 2e-6)
        return row


def test_queries_are_in_the_account(tmp_path: Path) -> None:
    embedder = Asked()
    embedder.embed_query("before")
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker=LineChunker()) as kb:
        kb.add(DOCUMENTS[:10])
        for _ in range(3):
            kb.search("line", mode="dense")
        assert kb.info()["queries"][embedder.name]["tokens"] == 6
        kb.add(DOCUMENTS[:20])
        kb.search("line", mode="dense")
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker=LineChunker()) as kb:
        kb.search("line", mode="dense")  # what a provider was asked for is told though nothing opened the ledger
    with nearest.open(tmp_path / "kb", embedder=embedder, chunker=LineChunker()) as kb:
        told = kb.info()
    assert (told["queries"][embedder.name]["texts"], told["queries"][embedder.name]["requests"]) == (5, 5)
    assert told["queries"][embedder.name]["dollars"] == pytest.approx(1e-5)
    assert (told["usage"][embedder.name]["runs"], told["usage"][embedder.name]["texts"]) == (2, 80)
    total = told["queries"][embedder.name]["tokens"] + told["usage"][embedder.name]["tokens"]
    assert total == embedder.usage.tokens - 2, "all but what was asked before"


def test_collections_that_share_an_embedder_count_nothing_twice(tmp_path: Path) -> None:
    embedder = Asked()
    with (
        nearest.open(tmp_path / "one", embedder=embedder, chunker=LineChunker()) as one,
        nearest.open(tmp_path / "two", embedder=embedder, chunker=LineChunker()) as two,
    ):
        one.add(DOCUMENTS[:10])
        two.add(DOCUMENTS[:10])
        one.search("line", mode="dense")
        two.search("line", mode="dense")
        told = [kb.info() for kb in (one, two)]
    kept = [facts[part].get(embedder.name, {"tokens": 0})["tokens"] for facts in told for part in ("usage", "queries")]
    assert sum(kept) == embedder.usage.tokens


def test_the_report_on_the_terminal_tells_what_was_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Priced()
    made.price = 0.0
    monkeypatch.setattr(embedders, "load", lambda spec: made)
    (tmp_path / "a.txt").write_text("three words here\n")
    assert cli.main(["add", str(tmp_path / "a.txt"), "-c", str(tmp_path / "kb")]) == 0
    assert "embedding: 1 text, 3 tokens, 1 request" in capsys.readouterr().out
