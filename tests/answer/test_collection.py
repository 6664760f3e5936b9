"""Answers of a collection: its conditions hold, its model is used, and questions follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import nearest
from benchmarks.answers import xquad
from nearest.answer import Answer, Sources, confidence
from nearest.app import Collection
from nearest.contract import Float32, Spent
from nearest.errors import ConnectionFailed, InvalidFilter, InvalidInput, InvalidQuery, ModelError
from tests.answer.conftest import Scripted, WordsEmbedder
from tests.search.fakes import Judge

TEXTS = {
    "keys": ("The signing keys rotate every 30 days.", 2024),
    "old": ("The signing keys rotate every 90 days.", 2019),
    "backups": ("Backups are made at night.", 2024),
}


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setattr(confidence, "ENOUGH", 0.0)
    with nearest.open(tmp_path / "kb", embedder=WordsEmbedder()) as opened:
        opened.add([nearest.Document(name, text, {"year": year}) for name, (text, year) in TEXTS.items()])
        yield opened


def test_a_condition_holds_for_the_sources(kb: Collection) -> None:
    question = "How often do signing keys rotate?"
    assert {s.document_id for s in kb.ask(question).sources} == set(TEXTS)
    answer = kb.ask(question, where={"year": {"$lt": 2020}}, k=5)
    assert [s.document_id for s in answer.sources] == ["old"]
    assert answer.text == "The signing keys rotate every 90 days. [1]"
    assert len(kb.ask(question, k=1).sources) == 1
    with pytest.raises(InvalidFilter):
        kb.ask(question, where={"year": {"$about": 2020}})
    with pytest.raises(InvalidInput, match="provider:model"):
        kb.ask(question, generator="gpt")


def test_the_cosine_of_a_source_is_that_of_its_hit(kb: Collection) -> None:
    question = "How often do signing keys rotate?"
    (source,) = kb.ask(question, k=1).sources
    vector = kb.embedder.embed_documents([source.text])[0]
    assert source.cosine == pytest.approx(float(vector @ kb.embedder.embed_query(question)), abs=0.01)


def test_a_stream_and_a_conversation(kb: Collection) -> None:
    parts = list(kb.ask_stream("When are backups made?"))
    assert isinstance(parts[0], Sources)
    assert isinstance(parts[-1], Answer)
    model = Scripted("Every 30 days. [1]", "When are backups made?", "At night. [1]")
    conversation = kb.conversation(generator=model)
    conversation.ask("How often do signing keys rotate?")
    answer = conversation.ask("And when are they made?")
    assert answer.standalone == "When are backups made?"
    assert answer.sources[0].document_id == "backups"


def test_what_an_answer_searches_for_is_cached_for_its_tenant() -> None:
    question = "How often do signing keys rotate?"

    with nearest.open("memory:", embedder=WordsEmbedder(), cache="memory") as kb:
        cache = kb.cache
        assert cache is not None

        def counts(tenant: str) -> tuple[int, int]:
            stats = cache.stats(tenant)
            return stats.exact, stats.misses

        kb.add([nearest.Document(name, text) for name, (text, _) in TEXTS.items()])
        first = kb.ask(question, tenant="a")
        assert (counts("a"), counts("b"), counts("")) == ((0, 1), (0, 0), (0, 0))
        assert kb.ask(question, tenant="b").sources == first.sources
        list(kb.ask_stream(question, tenant="b"))
        kb.conversation(tenant="b").ask(question)
        assert (counts("a"), counts("b"), counts("")) == ((0, 1), (2, 1), (0, 0))
        assert kb.ask(question).sources == first.sources
        assert counts("") == (0, 1)
        kb.delete(["old"])
        assert "old" not in {source.document_id for source in kb.ask(question, tenant="b").sources}
        with pytest.raises(InvalidQuery, match="tenant"):
            kb.ask(question, tenant=5)  # type: ignore[arg-type]  # as a caller without a type checker


@pytest.mark.usefixtures("shared_data")
def test_development_questions_of_xquad(tmp_path: Path) -> None:
    """A guard, not the measurement: that is `python -m benchmarks answers`, on other questions."""
    documents, _, development = xquad()
    questions = development[:30]
    some = {document for question in questions for document in question.gold}
    try:
        kb = nearest.open(tmp_path / "kb")
    except ModelError as error:
        pytest.skip(f"needs the weights of the default model: {error}")
    with kb:
        kb.add([document for n, document in enumerate(documents) if document.id in some or n % 4 == 0])
        quoted = [" ".join(sentence.text for sentence in kb.ask(question.text).sentences) for question in questions]
    inside = [any(answer in text for answer in q.answers) for q, text in zip(questions, quoted, strict=True)]
    assert sum(inside) >= 0.75 * len(questions)


@pytest.mark.parametrize("wrong", [{"rerank": object()}, {"rerank": 3}, {"generator": 3}, {"generator": object()}])
def test_models_are_named_or_are_models(kb: Collection, wrong: dict[str, Any]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kb.ask("backups?", **wrong),
        lambda: list(kb.ask_stream("backups?", **wrong)),
        lambda: kb.conversation(**wrong),
    ]
    if "rerank" in wrong:
        calls += [lambda: kb.search("backups", **wrong), lambda: kb.search_many(["backups"], **wrong)]
    for call in calls:
        with pytest.raises(InvalidInput, match="must be provider:model"):
            call()


def test_passages_are_reranked_and_what_that_cost_is_told(kb: Collection) -> None:
    class Counting(Judge):
        def scores(self, query: str, texts: Sequence[str]) -> Float32:
            self.spent += Spent(1, 70, 7, 0.5)
            return super().scores(query, texts)

    judge = Counting(lambda text: 1.0 if "Backups" in text else 0.0)
    question = "How often do signing keys rotate?"
    answer = kb.ask(question, rerank=judge, k=2)
    assert answer.sources[0].document_id == "backups"
    assert answer.reranking == Spent(1, 70, 7, 0.5)
    assert answer.dollars == 0.5
    assert kb.ask(question, k=2).reranking == Spent()
    silent = Judge(lambda text: 1.0)
    silent.error = ConnectionFailed("gone")
    late = kb.ask(question, rerank=silent, rerank_seconds=5.0, k=2)
    assert late.sources[0].document_id != "backups"
    assert late.dollars is None  # what it did before that, nobody told


def test_a_conversation_goes_on_from_what_was_kept(kb: Collection) -> None:
    first = kb.conversation()
    first.ask("How often do signing keys rotate?")
    (turn,) = first.history
    again = kb.conversation(history=[list(turn)])
    answer = again.ask("And when do they expire?")
    assert answer.standalone == "How often do signing keys rotate? And when do they expire?"
    assert [kept.question for kept in again.history] == [turn.question, answer.question]
    assert again.turns == [answer]
    wrongs: list[Any] = [["one", "two"], "abc", [1, 2, 3]]
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match="a turn is"):
            kb.conversation(history=[wrong])
