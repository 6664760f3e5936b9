"""The second stage: its order, its budget, its mark, and what happens when its model fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nearest
from nearest import errors, rerankers
from nearest.app import Collection
from nearest.contract import Document, Record, Reranker, Schema, VectorSpec
from nearest.ledger import Visibility
from nearest.search import Refinement, Searcher
from tests.embedders import reference
from tests.fakes import HashEmbedder, LineChunker
from tests.search.fakes import Judge, Late

NUMBERS = [Document(f"d{i:02}", f"number {i}\n", {"n": i}) for i in range(40)]


@pytest.fixture(params=["memory:", "edge"])
def kb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    place = request.param if request.param != "edge" else str(tmp_path / "kb")
    with nearest.open(place, embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        kb.add(NUMBERS)
        yield kb


def value(text: str) -> float:
    return float(text.split()[1])


def test_the_rerankers_order_replaces_the_first(kb: Collection) -> None:
    judge = Judge(value)
    hits = kb.search("number 7", k=5, rerank=judge, rerank_candidates=40, mode="dense")
    assert [hit.document_id for hit in hits] == ["d39", "d38", "d37", "d36", "d35"]
    assert [hit.score for hit in hits] == [39, 38, 37, 36, 35]
    assert judge.calls == [40]
    first = {hit.id: (rank, hit.score) for rank, hit in enumerate(kb.search("number 7", k=40, mode="dense"), 1)}
    for rank, hit in enumerate(hits, 1):
        assert hit.explain is not None
        assert hit.explain["rerank"] == {"model": "fake:judge", "rank": rank, "score": hit.score}
        told = hit.explain["first"]
        assert (told["rank"], told["score"]) == (first[hit.id][0], pytest.approx(first[hit.id][1], abs=1e-5))
        assert hit.explain["dense"] == told
    assert hits.explain is not None
    assert hits.explain["rerank"] == {"model": "fake:judge", "candidates": 40}
    assert set(hits.explain["seconds"]) == {"embed", "retrieve", "rerank", "refine"}


def test_only_the_candidates_are_judged(kb: Collection) -> None:
    judge = Judge(lambda text: -value(text))
    hits = kb.search("number 7", k=3, rerank=judge, rerank_candidates=6, mode="dense")
    best = kb.search("number 7", k=6, mode="dense")
    assert [hit.id for hit in hits] == sorted((hit.id for hit in best), key=lambda i: int(i[1:3]))[:3]
    assert judge.calls == [6]
    assert len(kb.search("number 7", k=9, rerank=judge, rerank_candidates=6)) == 9
    assert judge.calls == [6, 9]


def test_equal_scores_go_by_id(kb: Collection) -> None:
    hits = kb.search("number 7", k=40, rerank=Judge(lambda text: 1.0), mode="dense")
    assert [hit.id for hit in kb.search("number 7", k=40, rerank=Judge(lambda text: 1.0), mode="dense")] == [
        hit.id for hit in hits
    ]
    assert len({hit.id for hit in hits}) == 40


def test_a_model_that_takes_too_long_costs_the_reranking_alone(kb: Collection) -> None:
    judge = Judge(value, batch=4)
    judge.gate.clear()
    hits = kb.search("number 7", k=5, rerank=judge, rerank_candidates=20, rerank_seconds=0.05)
    plain = kb.search("number 7", k=5)
    assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in plain]
    why = "fake:judge did not answer within 0.05 s"
    assert hits.explain is not None
    assert hits.explain["rerank"] == {"model": "fake:judge", "candidates": 20, "skipped": why}
    assert all(h.explain and h.explain["rerank"] == {"model": "fake:judge", "skipped": why} for h in hits)
    judge.gate.set()
    again = kb.search("number 7", k=5, rerank=judge, rerank_candidates=20, rerank_seconds=60)
    assert [hit.score for hit in again] == sorted((hit.score for hit in again), reverse=True)
    assert again.explain is not None
    assert "skipped" not in again.explain["rerank"]
    assert (hits.skipped, again.skipped, plain.skipped) == (why, None, None)
    # Nothing was begun for the search that had been given up: one call of it, then five of the next.
    assert judge.calls == [4] * 6


def test_a_threshold_on_a_rerankers_scores_is_none_on_the_first_stages(kb: Collection) -> None:
    judge = Judge(value)
    assert len(kb.search("number 7", k=40, rerank=judge, min_score=30)) == 10
    judge.error = errors.TimedOut("late")
    hits = kb.search("number 7", k=5, rerank=judge, rerank_seconds=1, min_score=30, explain=False)
    assert (len(hits), hits.skipped) == (5, "late")


@pytest.mark.parametrize(
    "error", [errors.ConnectionFailed("away"), errors.Throttled("too much"), errors.TimedOut("late")]
)
def test_a_provider_that_cannot_be_asked_for_now(kb: Collection, error: Exception) -> None:
    judge = Judge(value)
    judge.error = error
    with pytest.raises(type(error), match=str(error)):
        kb.search("number 7", rerank=judge)
    hits = kb.search("number 7", k=3, rerank=judge, rerank_seconds=5)
    assert [hit.id for hit in hits] == [hit.id for hit in kb.search("number 7", k=3)]
    assert hits.explain is not None
    assert hits.explain["rerank"]["skipped"] == str(error)


@pytest.mark.parametrize("seconds", [None, 5.0])
def test_what_repeating_cannot_help_is_raised(kb: Collection, seconds: float | None) -> None:
    judge = Judge(value)
    judge.error = errors.AccessDenied("a wrong key")
    with pytest.raises(errors.AccessDenied, match="a wrong key"):
        kb.search("number 7", rerank=judge, rerank_seconds=seconds)
    with pytest.raises(errors.ModelError, match="not finite"):
        kb.search("number 7", rerank=Judge(lambda text: float("nan")), rerank_seconds=seconds)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rerank_candidates": 0},
        {"rerank_candidates": True},
        {"rerank_seconds": 0},
        {"rerank_seconds": 1, "after": ""},
        {"rerank_seconds": 1, "rerank": None},
        {"rerank_seconds": float("nan")},
        {"query": None, "vector": [1.0] * 16},
    ],
    ids=str,
)
def test_wrong_reranking_is_refused(kb: Collection, arguments: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidQuery):
        kb.search(**{"query": "x", "rerank": Judge(value), **arguments})  # type: ignore[arg-type]


def test_many_queries_and_no_hits(kb: Collection) -> None:
    judge = Judge(value)
    answers = kb.search_many(["number 1", "number 2"], k=2, rerank=judge, rerank_candidates=40)
    assert [[hit.document_id for hit in hits] for hits in answers] == [["d39", "d38"]] * 2
    assert kb.search("number", rerank=judge, where={"n": -1}) == []


def test_a_model_by_its_name_is_loaded_once(kb: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEAREST_CACHE_DIR", str(tmp_path / "cache"))
    folder = reference.make(
        tmp_path / "model", pooling=None, head=True, prefix="bert.", architectures=["BertForSequenceClassification"]
    )
    spec = f"local:{folder}"
    loaded: list[str] = []
    load = rerankers.load

    def counted(name: str) -> Reranker:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr(rerankers, "load", counted)
    hits = kb.search("number 3", k=4, rerank=spec)
    assert hits.explain is not None
    assert hits.explain["rerank"]["model"] == spec
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    wanted = load(spec).scores("number 3", [hit.text for hit in hits])
    np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-4)
    kb.search("number 4", rerank=spec)
    assert loaded == [spec]


def test_late_interaction_takes_the_token_vectors_that_a_store_holds() -> None:
    from nearest.stores import memory

    fields = {"dense": VectorSpec(4), "tokens": VectorSpec(4, metric="dot", multi=True)}
    embedder = HashEmbedder(4)
    late = Late()
    for schema in (Schema(vectors=fields, text="text"), Schema(vectors={"dense": VectorSpec(4)}, text="text")):
        with memory.connect(nearest.contract.StoreURL.parse("memory:"), schema) as store:
            store.upsert(
                Record(
                    f"r{i}",
                    {"dense": embedder.embed_query(f"t{i}"), "tokens": np.full((i + 1, 4), i + 1)}
                    if "tokens" in schema.vectors
                    else {"dense": embedder.embed_query(f"t{i}")},
                    {"document_id": f"d{i}", "chunk": 0, "text": f"t{i}", "metadata": {}},
                )
                for i in range(5)
            )
            searcher = Searcher(store, Visibility(), lambda: embedder)
            (hits,) = searcher.search_many(
                ["t1"], k=3, where=None, mode="hybrid", fusion="normalized", vectors=None, candidates=100, ef=None,
                explain=True, refinement=Refinement(rerank=late, stored="tokens" in schema.vectors),
            )  # fmt: skip
            if "tokens" in schema.vectors:
                assert [hit.id for hit in hits] == ["d4#0", "d3#0", "d2#0"]
    assert late.used == ["vectors", "texts"]
