"""More like this, diversity, groups, thresholds, pages, facets, highlights, other wordings, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import errors, filters
from nearest.app import Collection
from nearest.contract import Dense, Document, Float32, Fused, Query, Text
from nearest.search.feedback import BETA, GAMMA
from nearest.search.highlight import words
from nearest.search.refine import mmr
from tests.fakes import HashEmbedder, LineChunker
from tests.search.fakes import Judge


class Compass(HashEmbedder):
    """A text's vector is the direction, in degrees, that it ends with: `north 10`; others are by hash."""

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        rows = super().embed_documents(texts)
        for row, text in zip(rows, texts, strict=True):
            last = text.split()[-1]
            if last.isdecimal():
                row[:] = 0
                row[:2] = np.cos(np.radians(int(last))), np.sin(np.radians(int(last)))
        return rows


@pytest.fixture(params=["memory:", "edge"])
def kb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    place = request.param if request.param != "edge" else str(tmp_path / "kb")
    with nearest.open(place, embedder=Compass(), chunker=LineChunker(), fields={"year": "integer"}) as kb:
        yield kb


def names(hits: Sequence[nearest.Hit]) -> list[str | None]:
    return [hit.document_id for hit in hits]


def ids(hits: Sequence[nearest.Hit]) -> list[str]:
    return [hit.id for hit in hits]


def compass(*degrees: int) -> list[Document]:
    return [Document(f"at{d}", f"heading {d}", {"degrees": d}) for d in degrees]


# --- more like this --------------------------------------------------------------------------------


def test_more_like_a_document_finds_its_neighbours_and_not_itself(kb: Collection) -> None:
    kb.add(compass(0, 10, 25, 60, 90))
    assert names(kb.search(like="at10", k=3)) == ["at0", "at25", "at60"]
    assert names(kb.search(like="at10", k=9, where={"degrees": {"$gt": 20}})) == ["at25", "at60", "at90"]
    assert names(kb.search(like=["at0", "at90"], k=2)) == ["at60", "at25"]


def test_examples_move_the_query_by_rocchio(kb: Collection) -> None:
    kb.add([*compass(0, 40, 80), Document("two", "heading 20\nheading 60\n", {})])
    model = kb.embedder

    def unit(*degrees: int) -> Float32:
        mean = np.mean([model.embed_query(f"heading {d}") for d in degrees], axis=0)
        mean /= np.linalg.norm(mean)
        return np.asarray(mean, np.float32)

    hits = kb.search("heading 30", like=["two", "at0"], unlike="at80", k=3, mode="dense")
    wanted = unit(30) + BETA * (unit(20, 60) + unit(0)) / 2 - GAMMA * unit(80)
    wanted /= np.linalg.norm(wanted)
    assert names(hits) == ["at40"]
    assert hits[0].score == pytest.approx(float(unit(40) @ wanted), abs=1e-4)


def test_unlike_moves_away(kb: Collection) -> None:
    kb.add(compass(100, 145, 175, 180, 185))
    assert names(kb.search("heading 124", k=2, mode="dense")) == ["at145", "at100"]
    away = kb.search("heading 124", unlike=["at175", "at180", "at185"], k=5, mode="dense")
    assert names(away) == ["at100", "at145"]


def test_a_chunk_as_an_example_leaves_its_documents_others(kb: Collection) -> None:
    kb.add([Document("two", "heading 20\nheading 22\n", {}), Document("with#1", "heading 90\n", {}), *compass(50)])
    assert ids(kb.search(like="two#0", k=2)) == ["two#1", "at50#0"]
    assert ids(kb.search(like="two", k=2)) == ["at50#0", "with#1#0"]
    assert ids(kb.search(like="with#1", k=1)) == ["at50#0"], "a document whose id looks like a chunk's"


@pytest.mark.parametrize(
    "arguments",
    [
        {"like": "nobody"},
        {"like": "at0#7"},
        {"like": [3]},
        {"like": 3},
        {"query": "heading", "unlike": [None]},
        {"query": "heading", "expand": ["wheels"]},
        {"like": "#0"},
        {"unlike": "at0"},
        {"like": "at0", "mode": "lexical"},
        {"query": "heading", "like": "at0", "mode": "lexical"},
        {"query": "heading 180", "like": "at0", "unlike": [], "vector": [1.0, 0.0]},
        {"like": "at0", "rerank": Judge(lambda text: 1.0)},
    ],
    ids=str,
)
def test_wrong_examples_are_refused(kb: Collection, arguments: dict[str, Any]) -> None:
    kb.add(compass(0))
    with pytest.raises(errors.InvalidQuery):
        kb.search(**arguments)


# --- diversity -------------------------------------------------------------------------------------


def slow_mmr(scores: Float32, vectors: Float32, diversity: float, k: int) -> list[int]:
    """By the definition."""
    span = float(scores.max() - scores.min())
    relevance = [(float(s) - float(scores.min())) / span if span else 1.0 for s in scores]
    taken: list[int] = []
    while len(taken) < min(k, len(scores)):
        gains = {
            i: (1 - diversity) * relevance[i]
            - diversity * max((float(vectors[i] @ vectors[j]) for j in taken), default=0.0)
            for i in range(len(scores))
            if i not in taken
        }
        taken.append(max(gains, key=lambda i: (gains[i], -i)))
    return taken


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_mmr_by_its_definition(diversity: float) -> None:
    random = np.random.default_rng(3)
    for n in (1, 2, 30):
        vectors = random.standard_normal((n, 5)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = np.sort(random.random(n).astype(np.float32))[::-1]
        got = mmr(scores, vectors, diversity, 12)
        assert [i for i, _ in got] == slow_mmr(scores, vectors, diversity, 12)
        for at, (i, similarity) in enumerate(got):
            before = [float(vectors[i] @ vectors[j]) for j, _ in got[:at]]
            assert similarity == pytest.approx(max(before, default=0.0), abs=1e-6)


def test_diversity_passes_over_what_says_the_same(kb: Collection) -> None:
    kb.add(compass(0, 1, 2, 3, 40))
    assert names(kb.search("heading 0", k=3, mode="dense")) == ["at0", "at1", "at2"]
    hits = kb.search("heading 0", k=3, mode="dense", diversity=0.9)
    assert names(hits)[:2] == ["at0", "at40"]
    assert hits[0].explain is not None
    assert hits[0].explain["diversity"] == {"rank": 1, "before": 1, "similarity": 0.0}
    assert hits[1].vectors == {}, "they are not the caller's"
    assert kb.search("heading 0", where={"degrees": -1}, diversity=0.5) == []


# --- groups and thresholds -------------------------------------------------------------------------


def test_grouping_gives_the_best_chunk_of_each_of_k_documents(kb: Collection) -> None:
    kb.add([Document("long", "".join(f"heading {d % 9}\n" for d in range(300)), {}), *compass(20, 30, 40)])
    assert set(names(kb.search("heading 0", k=5, mode="dense"))) == {"long"}
    for mode in ("dense", "hybrid"):
        hits = kb.search("heading 0", k=4, mode=mode, group_by="document")
        assert names(hits) == ["long", "at20", "at30", "at40"], "deeper, until there are enough"
    assert hits[0].text == "heading 0\n"
    few = kb.search("heading 0", k=10, mode="dense", group_by="document")
    assert len(few) == 4


def test_a_threshold_leaves_out_what_is_below(kb: Collection) -> None:
    kb.add(compass(0, 30, 60, 90))
    hits = kb.search("heading 0", mode="dense", min_score=0.6)
    assert names(hits) == ["at0", "at30"]
    assert kb.search("heading 0", mode="dense", min_score=2) == []
    judged = kb.search("heading 0", mode="dense", rerank=Judge(lambda t: float(t.split()[1])), min_score=45)
    assert names(judged) == ["at90", "at60"], "on the scale of the last stage"
    grouped = kb.search("heading 0", mode="dense", min_score=0.6, group_by="document", k=10)
    assert names(grouped) == ["at0", "at30"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_score": "high"}, {"min_score": float("nan")}, {"group_by": "title"}, {"diversity": 1.5},
        {"diversity": -0.1}, {"diversity": True}, {"after": 5}, {"after": "rubbish"}, {"after": "", "k": 101},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_refinements_are_refused(kb: Collection, arguments: dict[str, Any]) -> None:
    kb.add(compass(0))
    with pytest.raises(errors.InvalidQuery):
        kb.search("heading 0", **arguments)


# --- pages -----------------------------------------------------------------------------------------


def pages(kb: Collection, **arguments: Any) -> list[list[str]]:
    found: list[list[str]] = []
    after: str | None = ""
    while after is not None:
        hits = kb.search(after=after, **arguments)
        found.append(ids(hits))
        after = hits.after
    return found


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "dense"},
        {"mode": "hybrid"},
        {"mode": "lexical"},
        {"mode": "dense", "group_by": "document"},
        {"mode": "dense", "diversity": 0.5},
        {"mode": "dense", "min_score": 0.5},
        {"mode": "dense", "rerank": Judge(lambda text: -float(text.split()[1])), "rerank_candidates": 30},
    ],
    ids=str,
)
def test_pages_give_the_ranking_whole_each_hit_once(kb: Collection, how: dict[str, Any]) -> None:
    kb.add([*compass(*range(0, 120, 3)), Document("pair", "heading 4\nheading 5\n", {})])
    found = pages(kb, query="heading 0", k=7, **{"candidates": 35, **how})
    together = [hit for page in found for hit in page]
    assert len(set(together)) == len(together)
    assert all(len(page) == 7 for page in found[:-1])
    assert len(found) > 2
    whole = pages(kb, query="heading 0", k=35 if "rerank" not in how else 30, **{"candidates": 35, **how})
    assert [hit for page in whole for hit in page] == together, "whatever the size of a page"
    plain = {**how, "k": 7, "candidates": 35}
    if "diversity" not in how and how["mode"] != "lexical":  # by words all are equally good: which are cut off is open
        assert found[0] == ids(kb.search("heading 0", **plain))


def test_a_page_goes_on_after_the_last_hit_while_documents_change(kb: Collection) -> None:
    kb.add(compass(10, 20, 30, 40, 50))
    first = kb.search("heading 0", k=2, mode="dense", after="")
    assert names(first) == ["at10", "at20"]
    kb.add(compass(5, 35))
    second = kb.search("heading 0", k=2, mode="dense", after=first.after)
    assert names(second) == ["at30", "at35"], "what is new before the page shifts nothing"
    kb.delete(["at35", "at10"])
    third = kb.search("heading 0", k=5, mode="dense", after=second.after)
    assert names(third) == ["at40", "at50"], "where the last hit is gone, it goes on where it would stand"
    assert third.after is None


def test_a_cursor_is_of_one_search(kb: Collection) -> None:
    kb.add(compass(*range(0, 90, 5)))
    after = kb.search("heading 0", k=3, after="").after
    assert after is not None
    assert kb.search("heading 0", k=5, after=after)
    for other in ({"query": "heading 1"}, {"mode": "dense"}, {"where": {"degrees": 5}}, {"group_by": "document"}):
        with pytest.raises(errors.InvalidQuery, match="another search"):
            kb.search(**{"query": "heading 0", "k": 3, "after": after, **other})  # type: ignore[arg-type]


# --- other wordings --------------------------------------------------------------------------------


def test_other_wordings_are_searched_as_well(kb: Collection) -> None:
    kb.add([Document("car", "a car", {}), Document("auto", "an automobile", {}), Document("sky", "the sky", {})])
    assert names(kb.search("car", mode="lexical")) == ["car"]
    asked: list[str] = []

    def expand(query: str) -> list[str]:
        asked.append(query)
        return ["automobile", query, "vehicle", "automobile"]

    hits = kb.search("car", mode="lexical", expand=expand)
    assert asked == ["car"]
    assert set(names(hits)) == {"car", "auto"}
    assert names(hits)[0] == "car", "the user's own words count most"
    assert hits[1].explain is not None
    assert hits[1].explain["lexical#2"]["rank"] == 1
    dense = kb.search("heading 10", mode="dense", expand=lambda query: ["heading 80"], k=2)
    assert len(dense) == 2
    assert kb.search("car", expand=lambda query: [], k=2) == kb.search("car", k=2)


@pytest.mark.parametrize("said", ["one text", [5], [""], None, 7])
def test_wordings_must_be_texts(kb: Collection, said: Any) -> None:
    kb.add(compass(0))
    with pytest.raises(errors.InvalidQuery, match="expand must return"):
        kb.search("heading", expand=lambda query: said)


def test_many_queries_take_examples_and_other_wordings_too(kb: Collection) -> None:
    kb.add(compass(0, 10, 25, 60, 90))
    texts = ["heading 20", "heading 70"]
    how: dict[str, Any] = {"like": "at10", "unlike": ["at90"], "k": 2}
    assert kb.search_many(texts, **how) == [kb.search(text, **how) for text in texts]
    assert "at10" not in names(kb.search_many(texts, **how)[0])
    wordings = {"heading 20": ["heading 60"], "heading 70": []}
    found = kb.search_many(texts, expand=wordings.__getitem__, k=2, mode="dense")
    assert found == [kb.search(text, expand=wordings.__getitem__, k=2, mode="dense") for text in texts]
    assert set(names(found[0])) != set(names(kb.search("heading 20", k=2, mode="dense")))
    with pytest.raises(errors.InvalidQuery, match="the id of no document"):
        kb.search_many(texts, like="nobody")
    wrongs: list[Any] = ["heading 20", None, 5]
    for wrong in wrongs:
        with pytest.raises(errors.InvalidQuery, match="queries must be a list"):
            kb.search_many(wrong)


# --- facets ----------------------------------------------------------------------------------------


def test_facets_count_documents_by_value(kb: Collection) -> None:
    kb.add(
        [
            Document("a", "one\ntwo\n", {"tag": ["x", "y", "x"], "year": 2020, "deep": {"er": 1}}),
            Document("b", "one\n", {"tag": "x", "year": 2021, "deep": {"er": True}}),
            Document("c", "one\n", {"tag": None, "year": 2021, "deep": 5}),
            Document("d", "one\n", {"tag": {"an": "object"}}),
        ]
    )
    assert kb.facets("tag") == [("x", 2), ("y", 1)]
    assert kb.facets("year") == [(2021, 2), (2020, 1)]
    assert kb.facets("year", k=1) == [(2021, 2)]
    assert kb.facets("tag", where={"year": 2021}) == [("x", 1)]
    assert sorted(map(repr, kb.facets("deep.er"))) == ["(1, 1)", "(True, 1)"]
    assert kb.facets("deep.er", where={"year": 2022}) == []
    assert kb.facets("deep") == [(5, 1)]
    with pytest.raises(errors.InvalidQuery, match="has a value of a metadata field 'yaer'; there is deep, tag, year"):
        kb.facets("yaer")
    with nearest.open("memory:", embedder=HashEmbedder(), fields={"kind": "keyword"}) as new:
        assert new.facets("anything") == []  # nothing can be known yet
        new.add([Document("a", "one", {"null": None, "none": [], "year": 2020})])
        assert new.facets("kind") == []  # declared
        assert new.facets("year", where={"year": 2021}) == []
        for field in ("null", "none"):
            with pytest.raises(errors.InvalidQuery, match=r"there is kind, year$"):
                new.facets(field)
    for wrong in ({"field": ""}, {"field": "a..b"}, {"field": 3}, {"field": "a", "k": 0}):
        with pytest.raises(errors.InvalidQuery):
            kb.facets(**wrong)


# --- highlights ------------------------------------------------------------------------------------


TEXT = "Nothing here. Running costs money, İstanbul says. The runner was paid. He ran, paid and paid again."


def test_highlights_are_the_shared_words_and_the_best_sentences(kb: Collection) -> None:
    found = kb.highlight("what do runs cost?", TEXT)
    assert [TEXT[a:b] for a, b in found.terms] == ["Running", "costs"]
    assert [TEXT[a:b] for a, b in found.sentences] == ["Running costs money, İstanbul says."]
    two = kb.highlight("paid running", TEXT)
    assert [TEXT[a:b] for a, b in two.terms] == ["Running", "paid", "paid", "paid"]
    assert [TEXT[a:b] for a, b in two.sentences] == ["Running costs money, İstanbul says.", "The runner was paid."]
    assert [TEXT[a:b] for a, b in kb.highlight("paid", TEXT, sentences=1).sentences] == ["The runner was paid."]
    none = kb.highlight("the and of", TEXT)
    assert (none.terms, none.sentences) == ([], [])


@pytest.mark.parametrize("wrong", [{"query": None}, {"text": None}, {"text": 3}, {"sentences": "2"}, {"sentences": -1}])
def test_highlights_are_of_texts(kb: Collection, wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidQuery, match=f"{next(iter(wrong))} must be"):
        kb.highlight(**{"query": "keys", "text": TEXT, **wrong})


def test_words_and_their_spans() -> None:
    text = "a-b c_d éa\u0301é, नमस्ते 12"
    assert [text[a:b] for a, b in words(text)] == ["a", "b", "c", "d", "éa\u0301é", "नमस्ते", "12"]
    assert words("") == []


# --- what is told ----------------------------------------------------------------------------------


def test_explain_tells_what_the_store_did_and_how_long_it_took(kb: Collection) -> None:
    kb.add(compass(*range(0, 90, 10)))
    hits = kb.search("heading 10", where={"degrees": {"$gte": 20}})
    assert hits.explain is not None
    assert hits.explain["mode"] == "hybrid"
    assert set(hits.explain["native"]) | set(hits.explain["completed"]) >= {"dense", "lexical", "fusion"}
    told = " ".join([*hits.explain["native"], *hits.explain["completed"]])
    assert "where" in told
    assert set(hits.explain["seconds"]) == {"embed", "retrieve"}
    assert all(0 <= spent < 60 for spent in hits.explain["seconds"].values())
    json.dumps(hits.explain)
    silent = kb.search("heading 10", explain=False)
    assert silent.explain is None
    assert silent[0].explain is None


def test_alpha_weighs_vectors_against_words(kb: Collection) -> None:
    kb.add(compass(*range(0, 180, 10)))
    query = "heading 40"

    def scores(**how: Any) -> dict[str, float]:
        return {hit.id: hit.score for hit in kb.search(query, k=20, **how)}

    dense, words = scores(mode="dense"), scores(mode="lexical")
    low, high = min(dense.values()), max(dense.values())
    for alpha in (0.0, 0.3, 1):
        wanted = {}
        for name, score in dense.items():
            by_words = (words[name] - min(words.values())) / (max(words.values()) - min(words.values()) or 1)
            wanted[name] = alpha * (score - low) / (high - low) + (1 - alpha) * by_words
        assert scores(alpha=alpha) == pytest.approx(wanted, abs=1e-5)
    assert scores(alpha=0.5) == pytest.approx(scores(fusion="normalized"))
    assert scores(alpha=0.5, fusion="rrf") == pytest.approx({n: s / 2 for n, s in scores(fusion="rrf").items()})
    assert [hits.explain for hits in kb.search_many([query], alpha=0.2)]
    for bad in (-0.1, 1.1, float("nan"), True, "0.5"):
        with pytest.raises(errors.InvalidQuery, match="alpha must be from 0"):
            kb.search(query, alpha=bad)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(errors.InvalidQuery, match="mode must be hybrid"):
        kb.search(query, mode="dense", alpha=0.5)


@pytest.mark.parametrize("fusion", ["adaptive", "rrf"])
def test_a_fusion_that_is_done_here_is_not_told_as_the_stores(tmp_path: Path, fusion: Any) -> None:
    with nearest.open(tmp_path / "kb", embedder=Compass(), chunker=LineChunker()) as kb:
        kb.add(compass(0, 10))
        hits = kb.search("heading 10", fusion=fusion)
        assert hits.explain is not None
        assert (hits.explain["native"], hits.explain["completed"]) == (["dense", "lexical"], ["fusion"])
        plan = kb.store.plan(Query(Fused((Dense([1, 0]), Text("heading")), "rrf")))
        assert plan == {"native": ["dense", "lexical", "fusion"], "completed": []}


@pytest.mark.parametrize("arguments", [{"fusion": "best"}, {"candidates": 0}, {"candidates": 2.5}])
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_settings_of_fusion_are_checked_in_every_mode(kb: Collection, mode: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidQuery, match="must be"):
        kb.search("heading 10", mode=mode, **arguments)


def test_a_completed_condition_is_named(tmp_path: Path) -> None:
    with nearest.open(tmp_path / "kb", embedder=Compass(), chunker=LineChunker()) as kb:
        kb.add([Document("a", "one\n", {"title": "alpha"}), Document("b", "two\n", {"title": "beta"})])
        where = {"title": {"$contains": "lph"}, "year": {"$exists": False}}
        hits = kb.search("one", where=where)
        assert names(hits) == ["a"]
        assert hits.explain is not None
        condition = filters.under(filters.parse(where), "metadata")
        support = kb.store.inner.filter_support  # type: ignore[attr-defined]
        exact = {node for node in filters.comparisons(condition) if support(node) == "exact"}
        completed = [word for word in hits.explain["completed"] if word.startswith("where ")]
        assert ("where metadata.title $contains" in completed) == all(node.op != "$contains" for node in exact)
        assert len(completed) + len(exact) == 2
