"""Several vectors a passage: what is stored of them, and rankings by their weighted mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest import app, errors, fusion
from nearest.app import Collection
from nearest.contract import TOKENS, Document, Float32, Hit
from nearest.ledger import Ledger
from nearest.location import Location
from tests.embedders import reference
from tests.fakes import HashEmbedder, LineChunker
from tests.search.fakes import Late

TITLED = [
    Document(f"d{i:02}", f"text {i}\nmore {i}\n", {"title": f"title {i % 7}"} if i % 5 else {}) for i in range(30)
]
WEIGHTS = {"dense": 1.0, "title": 3.0}


def made(place: str | Path, **how: Any) -> Collection:
    return nearest.open(place, **{"embedder": HashEmbedder(), "chunker": LineChunker(), **how})


@pytest.fixture(params=["memory:", "edge"])
def kb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    place = request.param if request.param != "edge" else str(tmp_path / "kb")
    with made(place, vectors={"title": "title"}) as kb:
        kb.add(TITLED)
        yield kb


def told(hits: Any) -> dict[str, float]:
    return {hit.id: hit.score for hit in hits}


def means(query: str, weights: Mapping[str, float]) -> dict[str, float]:
    """By the definition, of all passages."""
    model = HashEmbedder()
    asked, scores = model.embed_query(query), {}
    for document in TITLED:
        for ordinal, line in enumerate(document.text.splitlines(keepends=True)):
            texts = {"dense": line, "title": document.metadata.get("title", line)}
            parts = [weight * float(model.embed_query(texts[name]) @ asked) for name, weight in weights.items()]
            scores[f"{document.id}#{ordinal}"] = sum(parts) / sum(weights.values())
    return scores


@pytest.mark.parametrize("weights", [WEIGHTS, {"title": 1.0}, {"dense": 0.0, "title": 2.0}, {"dense": 5, "title": 1}])
def test_the_score_is_the_weighted_mean_of_the_cosines(kb: Collection, weights: dict[str, float]) -> None:
    wanted = means("title 3", weights)
    hits = kb.search("title 3", k=60, mode="dense", weights=weights)
    assert told(hits) == pytest.approx(wanted, abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_candidate_of_one_field_is_compared_by_all(kb: Collection) -> None:
    weights = {"dense": 3.0, "title": 1.0}
    how: Any = {"k": 4, "candidates": 4, "mode": "dense"}
    best = {hit.id for name in weights for hit in kb.search("text 11\n", weights={name: 1}, **how)}
    assert len(best) > 4
    hits = kb.search("text 11\n", weights=weights, **how)
    wanted = {i: score for i, score in means("text 11\n", weights).items() if i in best}
    assert [hit.score for hit in hits] == pytest.approx(sorted(wanted.values(), reverse=True)[:4], abs=1e-5)
    first = next(hit for hit in hits if hit.id == "d11#0")
    assert first.explain is not None
    assert first.explain["dense"] == {"rank": 1, "score": pytest.approx(1.0, abs=1e-5)}
    assert "rank" not in first.explain["title"]
    assert first.explain["title"]["score"] == pytest.approx(means("text 11\n", {"title": 1})["d11#0"], abs=1e-5)
    assert first.explain["weighted"]["score"] == first.score
    assert hits.explain is not None
    assert (hits.explain["native"], hits.explain["completed"]) == (["dense", "title"], ["fusion"])


def test_a_document_without_the_field_has_its_passages_own_vector(kb: Collection) -> None:
    hits = kb.search("text 10\n", k=1, mode="dense", weights=WEIGHTS)
    assert told(hits) == pytest.approx({"d10#0": 1.0}, abs=1e-5)


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_the_weight_of_the_passage_alone_changes_nothing(kb: Collection, mode: Any) -> None:
    plain = kb.search("text 12\n", k=7, mode=mode)
    assert told(kb.search("text 12\n", k=7, mode=mode, weights={"dense": 2.0})) == pytest.approx(told(plain), abs=1e-5)


@pytest.mark.parametrize("method", ["adaptive", "normalized", "rrf", "distribution"])
def test_words_are_fused_with_the_weighted_ranking(kb: Collection, method: fusion.Method) -> None:
    by_words = [(hit.id, hit.score) for hit in kb.search("more 4", k=60, mode="lexical")]
    dense = [(hit.id, hit.score) for hit in kb.search("more 4", k=60, mode="dense", weights=WEIGHTS)]
    wanted = fusion.scores([dense, by_words], method, flatness=[0.5, 1.0])
    hits = kb.search("more 4", k=60, weights=WEIGHTS, fusion=method)
    assert told(hits) == pytest.approx(wanted, abs=1e-5)
    assert hits[0].explain is not None
    assert {"dense", "title", "weighted", "lexical"} <= set(hits[0].explain)


def test_what_else_a_search_takes(kb: Collection) -> None:
    queries = ["title 3", "text 4\n"]
    many = kb.search_many(queries, k=5, weights=WEIGHTS)
    assert list(many) == [kb.search(query, k=5, weights=WEIGHTS) for query in queries]
    whole = kb.search("title 3", k=12, candidates=30, weights=WEIGHTS)
    paged: list[Hit] = []
    after = ""
    while len(paged) < 12:
        page = kb.search("title 3", k=4, candidates=30, weights=WEIGHTS, after=after)
        paged += page
        assert page.after is not None
        after = page.after
    assert [hit.id for hit in paged] == [hit.id for hit in whole]
    with pytest.raises(errors.InvalidQuery, match="another search"):
        kb.search("title 3", k=4, candidates=30, weights={"dense": 1, "title": 2}, after=after)
    like = kb.search(like="d01", k=3, mode="dense", weights=WEIGHTS)
    assert "d01" not in {hit.document_id for hit in like}
    expanded = kb.search("title 3", k=3, weights=WEIGHTS, expand=lambda text: ["text 8\n"])
    told = {name for hit in expanded for name in hit.explain or ()}
    assert {"title", "title#2", "lexical#2", "weighted#2"} <= told
    varied = kb.search("title 3", k=3, weights=WEIGHTS, diversity=0.5, group_by="document", where={"title": "title 3"})
    assert {hit.metadata["title"] for hit in varied} == {"title 3"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"summary": 1}, "no vector named 'summary'; the collection has dense, title"),
        ({"title": -1}, "a number from 0"),
        ({"title": float("nan")}, "a number from 0"),
        ({"title": True}, "a number from 0"),
        ({"title": 0}, "all 0"),
        ({}, "all 0, or none"),
        ([1], "by the name of a vector"),
    ],
)
def test_wrong_weights(kb: Collection, weights: Any, message: str) -> None:
    with pytest.raises(errors.InvalidQuery, match=message):
        kb.search("title 3", weights=weights)
    with pytest.raises(errors.InvalidQuery, match="mode must be dense or hybrid"):
        kb.search("title 3", weights=WEIGHTS, mode="lexical")


# --- what is stored --------------------------------------------------------------------------------


def test_a_title_is_embedded_once_and_updated_alone(tmp_path: Path) -> None:
    model = HashEmbedder()
    with made(tmp_path / "kb", embedder=model, vectors={"title": "about.title"}) as kb:
        one = Document("a", "one\ntwo\nthree\n", {"about": {"title": "fruit"}})
        kb.add([one, Document("b", "four\n", {"about": {"title": "fruit"}})])
        assert sorted(model.embedded) == ["four\n", "fruit", "one\n", "three\n", "two\n"]
        assert kb.add([one]).unchanged == 1
        report = kb.add([Document("a", one.text, {"about": {"title": "stone"}})])
        assert report.updated == 1
        found = told(kb.search("stone", k=9, mode="dense", weights={"title": 1}))
        assert {i for i, score in found.items() if score > 0.99} == {"a#0", "a#1", "a#2"}
        assert len(found) == 4
        kb.delete(["a"])
        assert set(told(kb.search("stone", k=9, mode="dense", weights={"title": 1}))) == {"b#0"}
    with made(tmp_path / "kb", chunker=None, embedder=model) as kb:
        pass


def test_a_list_of_texts_is_one_and_what_is_no_text_fails() -> None:
    model = HashEmbedder(max_words=3)
    with made("memory:", embedder=model, vectors={"words": "keywords"}) as kb:
        bad = Document("b", "y\n", {"keywords": 5})
        long = Document("c", "z\n", {"keywords": "one two three four"})
        report = kb.add(iter([Document("a", "x\n", {"keywords": ["red", None, "blue"]}), bad, long]))
        assert "red, blue" in model.embedded
        assert {failure.id: failure.reason.split(",")[0] for failure in report.failed} == {
            "b": "metadata.keywords: declared as keyword", "c": "metadata.keywords: text 0 has 4 words",
        }  # fmt: skip
        with pytest.raises(errors.InvalidDocument, match=r"metadata\.keywords"):
            kb.add([bad])
        assert kb.add([long], truncate=True).added == 1
    model = HashEmbedder(max_words=30)
    with made("memory:", embedder=model, vectors={"words": "keywords"}) as kb:
        report = kb.add([Document("d", "w\n", {"keywords": "one two three four " * 10})], pool=True)
        assert (report.added, report.pooled) == (1, 1)


def test_they_are_fixed_when_the_collection_is_made(tmp_path: Path) -> None:
    with made(tmp_path / "kb", vectors={"title": "title"}, token_vectors=Late()) as kb:
        kb.add(TITLED[:2])
        assert kb.info()["vectors"] == {"title": "title", "tokens": "fake:late"}
    for how, message in (
        ({"vectors": {"title": "name"}}, "vectors"),
        ({"vectors": {}}, "vectors"),
        ({"token_vectors": "maxsim:other"}, "token_vectors"),
    ):
        with pytest.raises(errors.SchemaMismatch, match=f"was made with {message}"):
            made(tmp_path / "kb", **how)
    with made(tmp_path / "kb", token_vectors=Late(seed=1)) as kb:
        with pytest.raises(errors.ModelMismatch, match="token vectors of other weights"):
            kb.add(TITLED[:3])
        assert kb.search("text 0\n", k=1, weights={"title": 1})  # needs no token vectors
    with made("memory:") as kb:
        assert kb.info()["vectors"] == {}


@pytest.mark.parametrize("at", [(Ledger, "set"), (Location, "open_ledger")])
def test_a_creation_that_was_cut_off_leaves_nothing_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str]
) -> None:
    def stop(*_: Any) -> None:
        raise errors.DiskFull("full")

    with monkeypatch.context() as patched:
        patched.setattr(*at, stop)
        with pytest.raises(errors.DiskFull):
            made(tmp_path / "kb", vectors={"title": "title", "summary": "summary"})
    with pytest.raises(errors.NotACollection):
        made(tmp_path / "kb", create=False)
    late = Late()
    with made(tmp_path / "kb", vectors={"name": "title"}, token_vectors=late) as kb:
        kb.add(TITLED[:2])
        assert kb.info()["vectors"] == {"name": "title", "tokens": "fake:late"}
        assert set(kb.store.schema.vectors) == {"dense", "name", "tokens"}
    with made(tmp_path / "kb", token_vectors=late, create=False) as kb:
        assert kb.count() == 2
        assert kb.search("text 1\n", k=1, mode="dense", weights={"name": 1, "tokens": 1})[0].document_id == "d01"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"vectors": {"dense": "title"}}, "a name is"),
        ({"vectors": {"tokens": "title"}}, "a name is"),
        ({"vectors": {"The Title": "title"}}, "a name is"),
        ({"vectors": {"title": ""}}, "give a metadata field"),
        ({"vectors": {"title": "a..b"}}, "give a metadata field"),
        ({"vectors": {"title": "year"}, "fields": {"year": "integer"}}, "only texts are embedded"),
        ({"token_vectors": "http:some?base_url=http://127.0.0.1:9"}, "no token vectors"),
    ],
)
def test_what_cannot_be_made(tmp_path: Path, how: Any, message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        made(tmp_path / "kb", **how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scheme", "how"), [("faiss", {"token_vectors": Late()}), ("chroma", {"vectors": {"title": "title"}})]
)
def test_a_store_that_cannot_hold_them_refuses_before_anything_is_written(
    tmp_path: Path, scheme: str, how: Any
) -> None:
    pytest.importorskip({"faiss": "faiss", "chroma": "chromadb"}[scheme], reason=f"{scheme} is not installed")
    with pytest.raises(errors.UnsupportedError, match=r"multi-vectors|named vectors"):
        made(f"{scheme}:{tmp_path / 'kb'}", **how)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_counts_them(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# The title\n\nand a text of words\n")
    tokens = {}
    for name, vectors in (("plain", None), ("titled", {"title": "title"})):
        with made(tmp_path / name, vectors=vectors) as kb:
            tokens[name] = kb.plan_files(tmp_path / "docs").usage.tokens
    assert tokens["titled"] == tokens["plain"] + 2


@pytest.mark.parametrize("there", [False, True])
def test_a_plan_is_made_as_the_collection_would_be(tmp_path: Path, there: bool) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.jsonl").write_text('{"text": "a", "year": 5}\n{"text": "b", "year": "five"}\n')
    asked: Any = {"fields": {"year": "integer"}, "vectors": {"title": "title"}, "token_vectors": Late()}
    how: Any = {"embedder": HashEmbedder(), "chunker": LineChunker(), **asked}
    if there:
        nearest.open(tmp_path / "kb", **how).close()
    plan = app.plan_files(tmp_path / "docs", tmp_path / "kb", **how)
    assert (plan.documents, len(plan.failed)) == (1, 1)
    assert (tmp_path / "kb").exists() == there
    if there:
        with pytest.raises(errors.SchemaMismatch, match="token_vectors"):
            app.plan_files(tmp_path / "docs", tmp_path / "kb", token_vectors="maxsim:other")


def test_a_plan_reckons_with_the_time_of_token_vectors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    for price, read in ((0.0, 4), (None, 0)):  # one to load the model and three; nothing tells how fast the embedder is
        late, model = Late(), HashEmbedder()
        model.price = price
        with made("memory:", embedder=model, token_vectors=late) as kb:
            assert (kb.plan_files(tmp_path).seconds is None) == (price is None)
        assert late.read == read


# --- token vectors ---------------------------------------------------------------------------------


def slow_maxsim(query: Float32, text: Float32) -> float:
    """By the definition, one pair of tokens at a time."""
    return sum(max(float(q @ t) for t in text) for q in query)


@pytest.mark.parametrize("place", ["memory:", "edge"])
def test_token_vectors_are_searched_and_reranked_by(tmp_path: Path, place: str) -> None:
    late = Late()
    with made(place if place != "edge" else tmp_path / "kb", token_vectors=late) as kb:
        kb.add(TITLED)
        texts = {record.id: record.text for record in kb.scan()}
        query, *rows = late.token_vectors(["more text 3", *texts.values()])
        wanted = {i: slow_maxsim(query, row) / len(query) for i, row in zip(texts, rows, strict=True)}
        hits = kb.search("more text 3", k=60, mode="dense", weights={TOKENS: 1.0})
        assert told(hits) == pytest.approx(wanted, abs=1e-5)
        mixed = told(kb.search("more text 3", k=60, mode="dense", weights={TOKENS: 1.0, "dense": 1.0}))
        dense = told(kb.search("more text 3", k=60, mode="dense"))
        assert mixed == pytest.approx({i: (wanted[i] + dense[i]) / 2 for i in wanted}, abs=1e-5)
        with pytest.raises(errors.InvalidQuery, match="token vectors are compared with those of a text"):
            kb.search(vector=HashEmbedder().embed_query("x"), mode="dense", weights={TOKENS: 1.0})
        kb.search("more text 3", rerank=late)
        other = Late(seed=1)  # of another model
        kb.search("more text 3", rerank=other)
    assert (late.used, other.used) == (["vectors"], ["texts"])


@pytest.mark.parametrize("place", ["memory:", "edge"])
def test_stored_token_vectors_rerank_as_numpy_does(tmp_path: Path, place: str) -> None:
    from nearest.rerankers import maxsim

    spec = f"maxsim:{reference.make(tmp_path / 'model', pooling=None)}"
    model = maxsim.load(spec.removeprefix("maxsim:"))
    documents = [Document(f"d{i}", text) for i, text in enumerate(reference.texts(20, 30))]
    place = place if place != "edge" else str(tmp_path / "kb")
    with made(place, token_vectors=spec) as kb:
        kb.add(documents)
        held = {r.payload["document_id"]: r.vectors[TOKENS] for r in kb.store.scan_all(with_vectors=True)}
        hits = kb.search("sleep and bone", k=20, mode="dense", rerank=spec)
        assert kb.search("sleep and bone", k=3, weights={TOKENS: 1})[0].explain is not None
    (query,) = model.token_vectors(["sleep and bone"])
    wanted = {f"{i}#0": slow_maxsim(query, rows) for i, rows in held.items()}
    assert len(wanted) == 20
    assert told(hits) == pytest.approx(wanted, abs=1e-3)
