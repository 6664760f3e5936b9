"""Runs: from hits, which are chunks, to rankings, which are documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace as N
from typing import Any, get_args
from unittest.mock import ANY

import pytest

from nearest.contract import Document, FusionMethod, Hit
from nearest.errors import InvalidInput, InvalidQuery
from nearest.evaluate import Dataset, Stage, ask, compare, per_query, run, trec, write_runs
from nearest.ingest import Progress, Report
from tests.evaluate.test_beir import Lines
from tests.search.fakes import Judge


class Canned:
    """A collection whose answers are given; remembers what it was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers = answers  # documents of the hits, by question
        self.asked: list[tuple[int, str, int]] = []
        self.fusions: list[str] = []

    def add(self, documents: Iterable[Document], *, pool: bool, progress: Callable[[Any], None] | None) -> Report:
        added = list(documents)
        assert pool
        assert progress is not None
        progress(Progress(len(added), len(added), 0, "indexing"))
        return Report(added=len(added), pooled=1)

    def search_many(
        self, queries: Sequence[str], *, k: int, mode: Any, fusion: Any = "adaptive", **how: Any
    ) -> list[list[Hit]]:
        self.asked.append((len(queries), mode, k))
        self.fusions.append(fusion)
        return [
            [Hit(f"{d}#{i}", {}, {"document_id": d}, -i) for i, d in enumerate(self.answers[query][:k])]
            for query in queries
        ]

    def info(self) -> dict[str, Any]:
        return {"documents": 2, "embedder": "fake", "chunker": {"name": "fake"}}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two"}\n')
    return path


def dataset(corpus: Path, qrels: dict[str, dict[str, int]]) -> Dataset:
    return Dataset("set", {q: f"{q}?" for q in qrels}, qrels, ["a", "b"], [], corpus, Lines())


def test_a_document_stands_where_its_best_chunk_does(corpus: Path) -> None:
    kb = Canned({"1?": ["x", "x", "x", "a", "x", "b"]})
    result = run(kb, dataset(corpus, {"1": {"a": 1}}))
    assert result.modes["dense"] == {
        "ndcg@10": pytest.approx(0.63093, abs=1e-5), "recall@100": 1.0, "mrr@10": 0.5, "map@100": 0.5,
        "precision@10": 0.1,
    }  # fmt: skip
    assert list(result.modes) == ["dense", "lexical", "hybrid"]
    assert result.queries == 1
    assert result.pooled == 1
    assert set(result.seconds) == {"index", "dense", "lexical", "hybrid"}


def test_a_query_that_is_a_document_does_not_find_itself(corpus: Path) -> None:
    kb = Canned({"a?": ["a", "b"]})
    assert run(kb, dataset(corpus, {"a": {"b": 1}})).modes["hybrid"]["mrr@10"] == 1.0


def test_more_chunks_are_fetched_until_there_are_a_hundred_documents(corpus: Path) -> None:
    many = [f"d{i // 5}" for i in range(1000)]  # five chunks a document
    kb = Canned({"1?": many, "2?": ["a"]})
    result = run(kb, dataset(corpus, {"1": {"d99": 1, "d100": 1}, "2": {"a": 1}}))
    assert result.modes["dense"]["recall@100"] == 0.75  # d99 is the hundredth, d100 is not among them
    assert [(n, k) for n, mode, k in kb.asked if mode == "dense"] == [(2, 101), (1, 202), (1, 404), (1, 808)]


def test_queries_without_a_positive_judgement_are_not_asked(corpus: Path) -> None:
    kb = Canned({"1?": ["a"]})
    assert run(kb, dataset(corpus, {"1": {"a": 1}, "2": {"b": 0}})).queries == 1


def test_progress_tells_the_stages(corpus: Path) -> None:
    told: list[Stage] = []
    run(Canned({"1?": ["a"]}), dataset(corpus, {"1": {"a": 1}}), told.append)
    assert told == [("index", 2, 2), ("dense", 1, 1), ("lexical", 1, 1), ("hybrid", 1, 1)]


def test_each_query_and_how_sure_the_means_are(corpus: Path) -> None:
    result = run(Canned({"1?": ["b", "a"], "2?": ["b"]}), dataset(corpus, {"1": {"a": 1}, "2": {"b": 1}}))
    assert {query: told["mrr@10"] for query, told in result.per_query["hybrid"].items()} == {"1": 0.5, "2": 1.0}
    assert result.intervals["hybrid"]["mrr@10"] == (0.5, 1.0)
    assert result.rankings["hybrid"]["1"] == [("b", 0), ("a", -1)]
    assert [(c.first, c.second, c.p) for c in result.comparisons] == [
        ("hybrid", "lexical", 1.0), ("hybrid", "dense", 1.0), ("lexical", "dense", 1.0),
    ]  # fmt: skip
    told = result.to_json()
    assert "rankings" not in told
    assert told["comparisons"][0]["measure"] == "ndcg@10"


def test_every_fusion_against_the_default(corpus: Path) -> None:
    class Fusing(Canned):
        """Reciprocal ranks alone find what was asked for."""

        def search_many(
            self, queries: Sequence[str], *, k: int, mode: Any, fusion: Any = "adaptive", **how: Any
        ) -> list[list[Hit]]:
            found = super().search_many(queries, k=k, mode=mode, fusion=fusion)
            return found if mode == "hybrid" and fusion == "rrf" else [hits[:1] for hits in found]

    kb = Fusing({f"{i}?": ["b", "a"] for i in range(6)})
    result = run(kb, dataset(corpus, {str(i): {"a": 1} for i in range(6)}), fusions=True)
    methods = list(get_args(FusionMethod))
    assert list(result.modes) == ["dense", "lexical", *methods]
    assert list(zip((mode for _, mode, _ in kb.asked), kb.fusions, strict=True)) == [
        ("dense", "adaptive"), ("lexical", "adaptive"), *(("hybrid", method) for method in methods),
    ]  # fmt: skip
    told = {(each.first, each.second): (each.difference, each.p) for each in result.comparisons}
    assert set(told) == {(name, "adaptive") for name in result.modes if name != "adaptive"}
    assert told["rrf", "adaptive"] == pytest.approx((0.63093, 2 / 64), abs=1e-5)
    assert told["normalized", "adaptive"] == (0.0, 1.0)
    assert {query: each["ndcg@10"] for query, each in result.per_query["dense"].items()} == dict.fromkeys("012345", 0.0)


class Judged(Canned):
    """A reranker turns the lists round; keeps how it was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__(answers)
        self.how: list[tuple[int, dict[str, Any]]] = []

    def search_many(
        self, queries: Sequence[str], *, k: int, mode: Any, fusion: Any = "adaptive", **how: Any
    ) -> list[list[Hit]]:
        self.how.append((k, how))
        found = super().search_many(queries, k=k, mode=mode, fusion=fusion)
        return [hits[::-1] for hits in found] if "rerank" in how else found


def test_a_reranker_orders_the_best_and_the_others_follow(corpus: Path) -> None:
    kb = Judged({"1?": [f"d{i}" for i in range(70)], "d49?": ["d49", "a"]})
    judge = Judge(len)
    result = run(kb, dataset(corpus, {"1": {"d49": 1, "d50": 1}, "d49": {"a": 1}}), rerank=judge, where={"n": 1})
    ranked = [document for document, _ in result.rankings["reranked"]["1"]]
    assert ranked == [*(f"d{i}" for i in range(49, -1, -1)), *(f"d{i}" for i in range(50, 70))]
    assert result.rankings["reranked"]["d49"] == [("a", -1)]  # no query finds itself
    assert (result.per_query["reranked"]["1"]["mrr@10"], result.per_query["hybrid"]["1"]["mrr@10"]) == (1.0, 0.0)
    assert kb.how[-1] == (50, {"where": {"n": 1}, "rerank": judge})
    assert all(how == {"where": {"n": 1}} for _, how in kb.how[:-1])
    last = result.comparisons[-1]
    assert (last.first, last.second, last.better, last.worse) == ("reranked", "hybrid", 1, 0)
    assert result.settings == {"k": 10, "where": {"n": 1}, "rerank": "fake:judge"}
    write_runs(result, corpus.parent / "runs")
    assert [d for d, _ in trec.read(corpus.parent / "runs" / "reranked.run")["1"]] == ranked


def test_a_condition_that_nothing_satisfies_is_told(corpus: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no document satisfies the condition \{'n': 2\}"):
        run(Judged({"1?": []}), dataset(corpus, {"1": {"a": 1}}), where={"n": 2})
    assert run(Judged({"1?": []}), dataset(corpus, {"1": {"a": 1}})).modes["hybrid"]["recall@100"] == 0.0


def test_weights_are_one_more_run_and_what_is_reranked(corpus: Path) -> None:
    kb = Judged({"1?": ["b", "a"]})
    result = run(kb, dataset(corpus, {"1": {"a": 1}}), fusions=True, weights={"dense": 2}, rerank=Judge(len))
    assert list(result.modes)[-2:] == ["weighted", "reranked"]
    assert [(c.first, c.second) for c in result.comparisons[-2:]] == [
        ("weighted", "adaptive"),
        ("reranked", "weighted"),
    ]
    assert [how for _, how in kb.how if how] == [{"weights": {"dense": 2}}, {"weights": {"dense": 2}, "rerank": ANY}]


def test_measures_look_at_as_many_as_asked(corpus: Path) -> None:
    kb = Canned({"1?": [f"d{i}" for i in range(300)]})
    result = run(kb, dataset(corpus, {"1": {"d1": 1, "d149": 1}}), k=150)
    assert result.modes["dense"]["precision@150"] == pytest.approx(2 / 150)
    assert result.modes["dense"]["recall@100"] == 0.5
    assert run(kb, dataset(corpus, {"1": {"d1": 1}}), k=1).modes["dense"]["mrr@1"] == 0.0
    for k in (0, -1, 1001, True, 2.5):
        with pytest.raises(InvalidInput, match="k must be a whole number from 1 to 1000"):
            run(kb, dataset(corpus, {"1": {"d1": 1}}), k=k)  # type: ignore[arg-type]


def test_answers_are_measured_and_how_sure_the_means_are() -> None:
    def answer(question: str) -> Any:
        if question == "3?":
            raise InvalidQuery("no passage fits")
        cited = {"1?": [[(1, True), (2, False)], [(2, False)]], "2?": []}[question]
        sentences = [N(citations=[N(source=s, supported=ok) for s, ok in some]) for some in cited]
        sources = [N(number=1, document_id="a"), N(number=2, document_id="b")]
        return N(found=bool(cited), confidence=0.5, sources=sources, sentences=sentences, dollars=0.25)

    means, intervals = ask({"1": "1?", "2": "2?"}, {"1": {"a": 1, "c": 1}, "2": {"b": 1}}, answer)
    assert means == {
        "found": 0.5, "confidence": 0.5, "judged_recall": 0.25, "support": 0.5,
        "citation_precision": pytest.approx(1 / 3), "judged_precision": 0.5, "dollars": 0.5, "over_budget": 0,
    }  # fmt: skip
    assert set(intervals) == set(means) - {"dollars", "over_budget"}
    assert (intervals["found"], intervals["support"]) == ((0.0, 1.0), (0.5, 0.5))
    stages: list[Stage] = []
    some, _ = ask({"1": "1?", "3": "3?"}, {"1": {"a": 1, "c": 1}, "3": {"b": 1}}, answer, stages.append)
    assert some == {**means, "confidence": 0.25, "over_budget": 1, "dollars": 0.25}
    assert stages[-1] == Stage("answers", 2, 2)


def test_two_runs_side_by_side() -> None:
    qrels = {str(i): {"a": 1} for i in range(6)}
    good = per_query({query: ["a"] for query in qrels}, qrels)
    poor = per_query({query: ["b", "a"] for query in qrels}, qrels)
    told = compare("good", good, "poor", poor, "mrr@10")
    assert (told.difference, told.better, told.worse) == (0.5, 6, 0)
    assert told.p == pytest.approx(2 / 64)
    with pytest.raises(InvalidInput, match="different queries"):
        compare("good", good, "other", {})
