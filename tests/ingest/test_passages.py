"""What a passage knows beside its text: its neighbours, its facts, its prefix; and passages that are left out."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest import errors
from nearest.app import Collection
from nearest.contract import Document, Mark
from nearest.ingest import facts
from nearest.ingest.duplicates import Duplicates
from tests.fakes import HashEmbedder, LineChunker

WORDS = [f"w{i}" for i in range(400)]


def open_kb(folder: Path, **options: Any) -> Collection:
    return nearest.open(folder / "kb", **{"embedder": HashEmbedder(), "chunker": LineChunker(), **options})


def line(seed: int, n: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n)) + "\n"


# --- neighbours ------------------------------------------------------------------------------------


def test_a_passage_knows_its_neighbours(tmp_path: Path) -> None:
    with open_kb(tmp_path) as kb:
        kb.add([Document("a#1", "one\ntwo\nthree\nfour\nfive\n"), Document("b", "other\n")])
        (hit,) = kb.search("three\n", k=1, mode="dense")
        assert [r.text for r in kb.around(hit)] == ["two\n", "three\n", "four\n"]
        assert [r.id for r in kb.around("a#1#0", after=2)] == ["a#1#0", "a#1#1", "a#1#2"]
        assert [r.text for r in kb.around("a#1#4", before=9, after=9)] == [
            *("one\n", "two\n", "three\n", "four\n", "five\n")
        ]
        assert [r.text for r in kb.around("a#1#2", before=0, after=0)] == ["three\n"]
        assert kb.around("a#1#5") == []
        assert kb.around("gone#0") == []
        with pytest.raises(errors.InvalidQuery):
            kb.around("a")


def test_neighbours_where_passages_were_left_out(tmp_path: Path) -> None:
    text = line(1) + line(2) + line(1) + line(1) + line(3)
    with open_kb(tmp_path) as kb:
        kb.add([Document("a", text)], skip_duplicates=0.9)
        assert [r.id for r in kb.around("a#4", before=2)] == ["a#0", "a#1", "a#4"]
        assert [r.id for r in kb.around("a#1")] == ["a#0", "a#1", "a#4"]
        assert kb.around("a#2") == []


# --- facts -----------------------------------------------------------------------------------------


def test_facts_are_kept_and_conditions_reach_them(tmp_path: Path) -> None:
    text = "no code and no number\ndef f(a): return 12\nlast one, the third\n"
    document = Document("a", text, {"facts": {"words": 1}}, (Mark(0, 1), Mark(22, 2, ("Code",))))
    with open_kb(tmp_path, fields={"_chunk.facts.words": "integer", "_chunk.page": "integer"}) as kb:
        kb.add([document])
        assert {r.text[:4]: {k: v for k, v in r.payload["facts"].items() if k != "indexed_at"} for r in kb.scan()} == {
            "no c": {"words": 5, "has_code": False, "has_numbers": False},
            "def ": {"words": 4, "has_code": True, "has_numbers": True},
            "last": {"words": 4, "has_code": False, "has_numbers": False},
        }

        def found(where: dict[str, Any]) -> set[str]:
            hits = kb.search("anything", k=9, where=where, mode="dense")
            assert {r.text[:4] for r in kb.scan(where)} == {hit.text[:4] for hit in hits}
            return {hit.text[:4] for hit in hits}

        assert found({"_chunk.facts.has_code": True}) == {"def "}
        assert found({"_chunk.facts.words": {"$gte": 5}}) == {"no c"}
        assert found({"_chunk.page": 2, "_chunk.headings": "Code"}) == {"def ", "last"}
        assert found({"$not": {"_chunk.facts.indexed_at": {"$gt": "2000-01-01T00:00:00Z"}}}) == set()
        assert found({"facts.words": 1}) == {"no c", "def ", "last"}  # the document's own metadata
        assert kb.info()["fields"] == {}
        assert kb.store.schema.fields["facts.words"] == "integer"
        for about_documents in (kb.count, lambda where: kb.delete(where=where)):
            with pytest.raises(errors.InvalidFilter, match="_chunk"):
                about_documents({"$or": [{"year": 1}, {"_chunk.page": 1}]})


def test_the_time_of_indexing_embeds_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = HashEmbedder()
    with open_kb(tmp_path, embedder=embedder) as kb:
        monkeypatch.setattr(facts, "now", lambda: "2020-01-01T00:00:00Z")
        kb.add([Document("a", "one\n")])
        monkeypatch.setattr(facts, "now", lambda: "2021-01-01T00:00:00Z")
        assert kb.add([Document("a", "one\n"), Document("b", "two\n")]).unchanged == 1
        assert embedder.embedded == ["one\n", "two\n"]
        assert {r.document_id: r.payload["facts"]["indexed_at"][:4] for r in kb.scan()} == {"a": "2020", "b": "2021"}


@pytest.mark.parametrize(
    "text",
    [
        *("```\nx\n```", ">>> 1 + 1", "def f(a):\n  pass", "    class A(B):", "import os", "from a.b import c"),
        *("public static void main(String[] args) {\n  f();\n}", "const a = 1", "#include <stdio.h>", "func f() {"),
        *("x = 1;\ny = 2;", "if (a) {", "fn main() {}", "<?php echo 1", "#!/bin/sh", "@property\n"),
    ],
)
def test_what_looks_like_code(text: str) -> None:
    assert facts.of(text, "")["has_code"] is True


@pytest.mark.parametrize(
    "text",
    [
        *(
            "A class of its own.",
            "Let us import this; it matters.",
            "He came from a town, imported goods",
            "for (see 3)",
        ),
        *("function and form", "the const of life", "", "# A heading\n\n- and a list;\n", "return to sender"),
    ],
)
def test_what_does_not_look_like_code(text: str) -> None:
    assert facts.of(text, "")["has_code"] is False


def test_language_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("py3langid", reason="the extra `language` is not installed")
    lines = "Dies ist ein deutscher Satz über das Wetter.\nThis is an English sentence about the weather.\n12 34\n"
    with open_kb(tmp_path) as kb:
        kb.add([Document("a", lines)], detect_language=True)
        assert [r.payload["facts"]["language"] for r in kb.around("a#1")] == ["de", "en", None]
        assert [r.text for r in kb.scan({"_chunk.facts.language": "de"})] == [lines.split("\n")[0] + "\n"]
        kb.add([Document("b", lines)])
        assert "language" not in kb.around("b#0")[0].payload["facts"]


# --- prefix ----------------------------------------------------------------------------------------

GUIDE = Document("a", "# Use\n\nRun it now.\n\n## Later\n\nRun it then.\n", {"title": "Guide"})


def test_a_prefix_is_embedded_and_not_shown(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    with open_kb(tmp_path, embedder=embedder, chunker="markdown:size=20,prefix=title+headings") as kb:
        kb.add([GUIDE])
        (record,) = kb.scan()
        assert embedder.embedded == ["Guide\n\n" + GUIDE.text]
        assert (record.text, list(record.headings)) == (GUIDE.text, ["Use"])
        assert kb.search("Guide", mode="lexical") == []
        document = kb.get("a")
        assert document is not None
        assert document.text == GUIDE.text
    # It is a setting of the collection: another is refused, not mixed in.
    with open_kb(tmp_path, embedder=embedder, chunker="markdown:size=20") as kb, pytest.raises(errors.SchemaMismatch):
        kb.add([GUIDE])


def test_another_heading_is_another_record_though_the_text_is_the_same(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    with open_kb(tmp_path, embedder=embedder, chunker="markdown:size=20,overlap=0,prefix=headings") as kb:
        body = "\n\nText of the part.\n\n" + "word " * 16 + "\n\n## Sub\n\nThe end.\n"
        kb.add([Document("a", "# One" + body)])
        before = {r.id: list(r.headings) for r in kb.scan()}
        kb.add([Document("a", "# Two" + body)])
        assert {tuple(h[:1]) for h in before.values()} == {("One",)}
        assert {tuple(r.headings[:1]) for r in kb.scan()} == {("Two",)}
        assert any(text.startswith(("Two > Sub\n\n", "Two\n\n")) for text in embedder.embedded)


def test_a_plan_with_a_chunker_that_asks_the_model_is_an_estimate(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(5):
        (docs / f"{i}.txt").write_text(" ".join(f"Sentence {i} {j} is about {WORDS[j]} alone." for j in range(60)))
    embedder = HashEmbedder()
    embedder.price = 0.1  # one that costs nothing is timed
    with open_kb(tmp_path, embedder=embedder, chunker="semantic:size=60") as kb:
        plan = kb.plan_files(docs)
        assert embedder.embedded == [], "it asks nobody"
        report = kb.add_files(docs)
    assert plan.sentences == 300
    assert plan.documents == report.added == 5
    assert abs(plan.chunks - report.chunks) <= 0.2 * report.chunks
    assert plan.usage.texts == 300 + plan.chunks


def test_a_plan_with_a_chunker_of_ones_own_that_asks_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One sentence. Another one.")
    chunker = LineChunker()
    chunker.embeds = True
    with open_kb(tmp_path, chunker=chunker) as kb, pytest.raises(errors.UnsupportedError, match="asks a model"):
        kb.plan_files(tmp_path / "a.txt")


def test_a_plan_leaves_out_near_duplicates_as_the_run_does(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    with open_kb(tmp_path) as kb:
        kb.add([Document("before", line(1) + line(2))])
        (docs / "a.txt").write_text(line(3) + line(2) + line(4))
        (docs / "b.txt").write_text(line(5) + line(4) + line(6))
        plan = kb.plan_files(docs, skip_duplicates=0.9)
        report = kb.add_files(docs, skip_duplicates=0.9)
        assert (plan.duplicates, plan.chunks) == (len(report.duplicates), report.chunks) == (2, 4)
        assert plan.usage.texts == 4
        assert kb.plan_files(docs, skip_duplicates=0.9).unchanged == 2, "the setting is part of what is compared"


# --- near-duplicates -------------------------------------------------------------------------------


def test_near_duplicates_are_left_out_within_a_run_and_across_runs(tmp_path: Path) -> None:
    words = line(1, 100).split()
    near = " ".join([*words[:50], "changed", *words[51:]]) + "\n"  # 3 of 98 runs of words differ: 95 of 101
    with open_kb(tmp_path) as kb:
        report = kb.add(
            [Document("a", line(9) + line(1, 100) + near), Document("b", line(8) + near)], skip_duplicates=0.9
        )
        assert [(d.id, d.of) for d in report.duplicates] == [("a#2", "a#1"), ("b#1", "a#1")]
        assert {round(d.resemblance, 3) for d in report.duplicates} == {round(95 / 101, 3)}
        assert report.chunks == kb.store.count() == 3
        again = kb.add([Document("c", line(1, 100) + near + line(7))], skip_duplicates=0.9)
        assert [(d.id, d.of) for d in again.duplicates] == [("c#1", "a#1")]  # its first passage stays
        assert kb.count({"$not": {"x": 1}}) == 3
        # What was left out is known to be missing.
        with pytest.raises(errors.UnsupportedError, match="left out"):
            kb.get("c")
        # The same again is unchanged; without skipping it is another setting, and complete.
        assert kb.add([Document("c", line(1, 100) + near + line(7))], skip_duplicates=0.9).unchanged == 1
        whole = Document("c", line(1, 100) + near + line(7))
        assert kb.add([whole]).updated == 1
        assert kb.get("c") == whole


def test_a_copy_of_a_whole_document_is_kept_as_its_first_passage(tmp_path: Path) -> None:
    text = line(1) + line(2) + line(3)
    with open_kb(tmp_path) as kb:
        report = kb.add([Document("a", text), Document("copy", text)], skip_duplicates=0.9)
        assert [(d.id, d.of) for d in report.duplicates] == [("copy#1", "a#1"), ("copy#2", "a#2")]
        assert (report.added, report.chunks, kb.count()) == (2, 4, 2)
        assert kb.add([Document("copy", text)], skip_duplicates=0.9).unchanged == 1
        kb.delete(["a"])
        assert (kb.count(), [r.document_id for r in kb.scan()]) == (1, ["copy"])
        assert kb.add([Document("copy", text)]).updated == 1
        assert kb.get("copy") == Document("copy", text)


def test_a_document_is_no_duplicate_of_its_former_version(tmp_path: Path) -> None:
    with open_kb(tmp_path) as kb:
        kb.add([Document("a", line(1) + line(2))], skip_duplicates=0.9)
        report = kb.add([Document("a", line(1) + line(2), {"new": True})], skip_duplicates=0.9)
        assert (report.updated, report.duplicates) == (1, [])
        assert {r.id for r in kb.scan()} == {"a#0", "a#1"}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_resemblance_is_found_at_every_threshold(threshold: float) -> None:
    """At the threshold about 1 of 100 pairs may be missed; below it none is taken."""
    rng = random.Random(7)
    found = should = 0
    for trial in range(200):
        words = [f"{trial}-{i}" for i in range(60)]
        other = words.copy()
        for i in rng.sample(range(60), rng.randrange(12)):
            other[i] = f"other{i}"
        runs = [{tuple(w[i : i + 3]) for i in range(58)} for w in (words, other)]
        resemblance = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
        index = Duplicates(threshold)
        kept, left_out = index.without("a", LineChunker().chunk("first\n" + _text(words) + "\n" + _text(other)))
        if resemblance < threshold:
            assert left_out == [], (resemblance, words)
        else:
            should += 1
            found += len(left_out)
            assert all(d.resemblance == pytest.approx(resemblance) for d in left_out)
        assert len(kept) + len(left_out) == 3
    assert found >= 0.97 * should > 0


def _text(words: list[str]) -> str:
    return " ".join(word.replace("-", "x") for word in words)


@pytest.mark.parametrize("text", ["中文没有空格。" * 9, "...", "!!! ???", "a", "क ख ग"])
def test_resemblance_of_any_text(text: str) -> None:
    chunks = LineChunker().chunk(f"first\n{text}\n{text}\nother words of another line\n")
    kept, left_out = Duplicates(1.0).without("a", chunks)
    assert [d.of for d in left_out] == ["a#1"]
    assert len(kept) == 3


@pytest.mark.parametrize("threshold", [0, 0.2, 1.1, -1, True, "0.9", float("nan")])
def test_resemblance_is_a_share(threshold: Any, tmp_path: Path) -> None:
    with open_kb(tmp_path) as kb, pytest.raises(errors.InvalidInput):
        kb.add([Document("a", "one\n")], skip_duplicates=threshold)
