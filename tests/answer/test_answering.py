"""Answers: quoted, generated, checked, streamed, and what happens when something fails."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nearest.answer import NOT_FOUND, Answer, Answerer, Asked, Sentence, Sources, confidence, support
from nearest.answer import answering as answering_module
from nearest.answer.confidence import Logistic
from nearest.contract import Reranker, Spent, Usage
from nearest.errors import AccessDenied, ConnectionFailed, InvalidQuery
from nearest.search import Hits
from nearest.stores._bm25 import Analyzer
from tests.answer.conftest import Answering, Scripted, WordsEmbedder, hit, terms

KEYS = "The signing keys rotate every 30 days. Old keys stay valid for 7 days."
BACKUPS = "Backups are made at night. They are kept in Lisbon."
HITS = [hit("keys.md", KEYS, score=0.9), hit("backups.md", BACKUPS, score=0.4)]
QUESTION = "How often do the signing keys rotate?"


@pytest.fixture(autouse=True)
def plain_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the path, not about what was fitted with another model."""
    weights = {
        "cosine": 4.0,
        "coverage": 4.0,
        "beside_cosine": 0.0,
        "beside_coverage": 0.0,
        "passage": 0.0,
        "rank": 1.0,
    }
    monkeypatch.setattr(confidence, "SENTENCE", Logistic(-5.0, weights))
    nothing = {"best": 1.0, "cosine": 0.0, "coverage": 0.0, "passage": 0.0, "lead": 0.0}
    monkeypatch.setattr(confidence, "EVIDENCE", Logistic(0.5, nothing))
    others = {"cosine": 3.0, "coverage": 4.0, "window": 0.0, "numbers": -6.0, "names": -6.0}
    monkeypatch.setattr(confidence, "SUPPORT", Logistic(-4.0, others))
    monkeypatch.setattr(confidence, "ENOUGH", 0.5)


def test_without_a_model_the_best_sentences_are_quoted_and_cited(answering: Answering) -> None:
    answer = answering(HITS).answer(QUESTION, Asked())
    assert answer.found
    assert answer.sentences[0].text == "The signing keys rotate every 30 days."
    assert answer.text.startswith("The signing keys rotate every 30 days. [1]")
    assert all(s.supported and s.citations[0].support == 1.0 for s in answer.sentences)
    assert answer.cited[0].document_id == "keys.md"
    assert 0.5 < answer.confidence <= 1
    assert (answer.generator, answer.notice, answer.spent.requests) == ("extractive", None, 0)
    assert not answer.calibrated
    for s in answer.sentences:
        assert answer.raw[s.start : s.end].startswith(s.text)


def test_evidence_that_is_missing_is_told(answering: Answering) -> None:
    answer = answering(HITS).answer("Who painted the ceiling?", Asked())
    assert (answer.found, answer.text, answer.sentences) == (False, NOT_FOUND, ())
    assert answer.confidence < 0.5
    assert len(answer.sources) == 2


def test_nothing_found_asks_no_model(answering: Answering) -> None:
    answerer = answering([], "never")
    answer = answerer.answer(QUESTION, Asked())
    assert (answer.text, answer.found, answer.confidence) == (NOT_FOUND, False, 0.0)
    assert answer.notice == "the search found nothing"
    assert isinstance(answerer.generator, Scripted)
    assert answerer.generator.prompts == []


def test_a_passage_over_the_budget_is_not_cut(answering: Answering) -> None:
    answer = answering([*HITS, hit("c", "Keys rotate.")]).answer(QUESTION, Asked(budget=4))
    assert (answer.omitted, [source.text for source in answer.sources]) == (2, ["Keys rotate."])


def test_a_budget_that_no_passage_fits_is_no_evidence_of_absence(answering: Answering) -> None:
    answerer = answering(HITS, "never")
    with pytest.raises(InvalidQuery, match="budget of 3 tokens"):
        answerer.answer(QUESTION, Asked(budget=3))
    assert isinstance(answerer.generator, Scripted)
    assert answerer.generator.prompts == []


def test_each_sentence_of_a_model_is_checked_and_what_is_unsupported_is_marked(answering: Answering) -> None:
    reply = (
        "The signing keys rotate every 30 days. [1] They are made by Siemens in Munich. [1] "
        "Backups are made at night [2]."
    )
    answer = answering(HITS, reply).answer(QUESTION, Asked())
    assert [s.supported for s in answer.sentences] == [True, False, True]
    assert answer.raw == reply
    assert answer.text == reply.replace("Munich. [1]", "Munich. [1] [unsupported]")
    assert [s.citations[0].source for s in answer.sentences] == [1, 1, 2]
    assert answer.spent.dollars == 0.001
    assert 0 < answer.confidence <= 2 / 3


def test_confidence_is_that_of_the_evidence_times_the_share_that_is_supported() -> None:
    assert confidence.product(0.9, [True, False, True]) == pytest.approx(0.6)
    assert confidence.product(0.9, []) == 0.0


@pytest.mark.parametrize(
    ("reply", "supported"),
    [
        ("The signing keys rotate every 30 days.", False),  # cites nothing
        ("The signing keys rotate every 30 days. [7]", False),  # cites what is not there
        ("The signing keys rotate every 30 days. [2]", False),  # cites another passage
        ("The signing keys rotate every 90 days. [1]", False),  # a number that the passage lacks
        ("The signing keys rotate every 30 days. [2][1]", True),
        ("The signing keys rotate every 30 days [1, 2].", True),
        ("Signing keys rotate every 30 days. [1]", True),
    ],
)
def test_support(answering: Answering, reply: str, supported: bool) -> None:
    (sentence,) = answering(HITS, reply).answer(QUESTION, Asked()).sentences
    assert sentence.supported is supported


def test_a_model_that_finds_nothing_says_so(answering: Answering) -> None:
    for reply in (
        "NOT IN THE SOURCES",
        "Not in the sources.",
        " **NOT IN THE SOURCES** ",
        "NOT IN THE SOURCES. [1][2]",
    ):
        parts = list(answering(HITS, reply).stream(QUESTION, Asked()))
        answer = parts[-1]
        assert isinstance(answer, Answer)
        assert (answer.found, answer.text, answer.notice) == (False, NOT_FOUND, None)
        assert answer.spent.requests == 1


def test_a_reranker_that_did_not_judge_is_told_beside_what_else_went_wrong() -> None:
    def search(query: str, **_: Any) -> Hits:
        return Hits(HITS, skipped="judge did not answer within 1 s")

    def notice(generator: Scripted | None) -> str | None:
        return Answerer(search, WordsEmbedder, terms, generator).answer(QUESTION, Asked()).notice

    assert notice(None) == "not reranked: judge did not answer within 1 s"
    told = notice(Scripted(ConnectionFailed("away")))
    assert told is not None
    assert told.startswith(
        "not reranked: judge did not answer within 1 s; test:scripted failed (ConnectionFailed: away)"
    )


def test_headings_and_marks_of_the_sources_own_are_not_quoted(answering: Answering) -> None:
    text = "Rotation of the signing keys\n----------------------------\n\nThe signing keys rotate every 30 days [1][7]."
    answer = answering([hit("a", text), hit("b", "# How often do the signing keys rotate")]).answer(QUESTION, Asked())
    assert [sentence.text for sentence in answer.sentences] == ["The signing keys rotate every 30 days."]
    assert answer.raw == "The signing keys rotate every 30 days. [1]"
    only = answering([hit("b", "# How often do the signing keys rotate")]).answer(QUESTION, Asked())
    assert only.sentences  # better than nothing


def test_a_model_that_gives_no_text_is_no_evidence_of_absence(answering: Answering) -> None:
    answer = answering(HITS, " \n").answer(QUESTION, Asked())
    assert answer.notice == "test:scripted gave no text; sentences of the sources are quoted instead"
    assert answer.found
    assert answer.generator == "extractive"
    assert answer.spent.requests == 1


def test_a_stream_gives_sources_pieces_checked_sentences_and_the_answer(answering: Answering) -> None:
    reply = "The signing keys rotate every 30 days. [1] Backups are made at night. [2]"
    parts = list(answering(HITS, reply).stream(QUESTION, Asked()))
    assert isinstance(parts[0], Sources)
    assert "".join(part for part in parts if isinstance(part, str)) == reply
    kinds = [type(part).__name__ for part in parts[1:]]
    assert kinds[-2:] == ["Sentence", "Answer"]
    first = kinds.index("Sentence")
    assert "str" in kinds[first:]  # checked as soon as it was complete
    sentences = [part for part in parts if isinstance(part, Sentence)]
    assert isinstance(parts[-1], Answer)
    assert parts[-1].sentences == tuple(sentences)
    assert [[c.source for c in s.citations] for s in sentences] == [[1], [2]]


def test_a_provider_that_fails_costs_the_generated_text_alone(answering: Answering) -> None:
    answer = answering(HITS, AccessDenied("no key")).answer(QUESTION, Asked())
    assert answer.notice == ("test:scripted failed (AccessDenied: no key); sentences of the sources are quoted instead")
    assert answer.found
    assert answer.generator == "extractive"
    assert len(answer.sources) == 2
    assert answer.sentences[0].text == "The signing keys rotate every 30 days."
    assert answer.spent == Spent(1)  # nobody bills for that


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("x"), ConnectionFailed("gone")])
def test_a_generator_of_ones_own_that_fails_costs_no_more(answering: Answering, error: Exception) -> None:
    answer = answering(HITS, error).answer(QUESTION, Asked())
    assert answer.notice is not None
    assert answer.notice.startswith(f"test:scripted failed ({type(error).__name__}: ")
    assert (answer.found, answer.generator, answer.spent.dollars) == (True, "extractive", None)
    answer = answering(HITS, ("The signing keys rotate every 30 days. [1] Ba", error)).answer(QUESTION, Asked())
    assert answer.notice is not None
    assert answer.notice.startswith("the answer is cut off: test:scripted failed")


def test_a_generator_that_gives_no_text_but_something_else(answering: Answering) -> None:
    class Odd(Scripted):
        def stream(self, messages: Any, *, max_tokens: int) -> Any:
            yield None

    answerer = answering(HITS)
    answerer.generator = Odd()
    answer = answerer.answer(QUESTION, Asked())
    assert answer.notice is not None
    assert "a piece of text must be a str, got None" in answer.notice


def test_an_answer_tells_what_all_its_models_cost(answering: Answering) -> None:
    class Paid(WordsEmbedder):
        price: float | None = 2.0

        def embed_documents(self, texts: Any, *, truncate: bool = False) -> Any:
            tokens = sum(len(text.split()) for text in texts)
            self.usage += Usage(len(texts), 0, 0, 1, tokens, tokens * (self.price or 0.0) / 1e6)
            return super().embed_documents(texts, truncate=truncate)

    class Judge(Reranker):
        name = "test:judge"

        def scores(self, query: str, texts: Any) -> Any:
            self.spent += Spent(1, 50, 5, 0.25)

    embedder, judge = Paid(), Judge()
    embedder.usage = Usage(1, 0, 0, 7, 1000, 10.0)  # of earlier questions, which are not this one's
    judge.spent = Spent(9, 900, 90, 9.0)

    def search(query: str, **_: Any) -> Hits:
        embedder.embed_query(query)
        judge.scores(query, [])
        return Hits(HITS)

    def make(generator: Scripted | None = None) -> Answerer:
        return Answerer(search, lambda: embedder, terms, generator, judge)

    quoted = make().answer(QUESTION, Asked())
    # The query twice, to search and to weigh the sentences, and those.
    words = 2 * len(QUESTION.split()) + len(KEYS.split()) + len(BACKUPS.split())
    assert (quoted.embedding.requests, quoted.embedding.input_tokens) == (3, words)
    assert quoted.embedding.dollars == pytest.approx(words * 2 / 1e6)
    assert quoted.reranking == Spent(1, 50, 5, 0.25)
    assert quoted.dollars == pytest.approx(words * 2 / 1e6 + 0.25)
    assert quoted.notice is None
    told = quoted.to_json()["usage"]
    assert told["embedder"]["input_tokens"] == words
    assert told["reranker"] == {"requests": 1, "input_tokens": 50, "output_tokens": 5, "dollars": 0.25}
    written = make(Scripted("The signing keys rotate every month. [1]")).answer(QUESTION, Asked())
    assert written.embedding.input_tokens > words  # what was written is checked as well
    assert written.dollars == pytest.approx(0.001 + 0.25 + written.embedding.input_tokens * 2 / 1e6)
    embedder.price = None
    unpriced = make().answer(QUESTION, Asked())
    assert (unpriced.embedding.dollars, unpriced.dollars) == (None, None)


def test_what_was_written_before_a_failure_is_kept_and_checked(answering: Answering) -> None:
    reply = ("The signing keys rotate every 30 days. [1] Ba", ConnectionFailed("gone"))
    answer = answering(HITS, reply).answer(QUESTION, Asked())
    assert answer.notice == "the answer is cut off: test:scripted failed (ConnectionFailed: gone)"
    assert [s.supported for s in answer.sentences] == [True, False]


def test_an_answer_that_reached_its_limit_is_told(answering: Answering) -> None:
    answerer = answering(HITS, *["The signing keys rotate [1]"] * 3, "")
    assert isinstance(answerer.generator, Scripted)
    # As many tokens as were allowed are no sign: the provider says it.
    assert answerer.answer(QUESTION, Asked(max_tokens=20)).notice is None
    answerer.generator.stopped = "max_tokens"
    answer = answerer.answer(QUESTION, Asked(max_tokens=500))
    assert answer.notice == "the answer is cut off: test:scripted stopped at max_tokens=500"
    answerer.generator.stopped = "content_filter"
    assert answerer.answer(QUESTION, Asked()).notice == ("the answer is cut off: test:scripted stopped: content_filter")
    answerer.generator.stopped = "max_tokens"  # all of them for thoughts
    assert answerer.answer(QUESTION, Asked()).notice == (
        "test:scripted stopped at max_tokens=800; sentences of the sources are quoted instead"
    )


def test_what_is_wrong_in_the_question_is_raised(answering: Answering) -> None:
    with pytest.raises(InvalidQuery, match="empty"):
        answering(HITS).answer("  ", Asked())
    with pytest.raises(InvalidQuery, match="budget"):
        Asked(budget=0)


def test_an_answer_is_json(answering: Answering) -> None:
    told = json.loads(json.dumps(answering(HITS, "Signing keys rotate. [1]").answer(QUESTION, Asked()).to_json()))
    assert told["answer"].startswith("Signing keys rotate. [1]")
    assert told["usage"]["generator"] == {"requests": 1, "input_tokens": 100, "output_tokens": 20, "dollars": 0.001}
    assert told["usage"]["dollars"] == 0.001
    assert [s["number"] for s in told["sources"]] == [1, 2]


@pytest.mark.parametrize(
    ("raw", "sentences"),
    [
        ("A b. [1] C d. [2]", [("A b.", [1]), ("C d.", [2])]),
        ("A b [1]. C d [1][2].", [("A b.", [1]), ("C d.", [1, 2])]),
        ("A b.[1]\n\n- C d; [2, 3]", [("A b.", [1]), ("- C d;", [2, 3])]),
        ("A b.\n[1]", [("A b.", [1])]),
        ("A b.【1】 C d【1】【2】. E f. 【3†notes.md】", [("A b.", [1]), ("C d.", [1, 2]), ("E f.", [3])]),
        ("甲は乙。【1】丙は丁。【2】", [("甲は乙。", [1]), ("丙は丁。", [2])]),
        ("A b (1). C d.", [("A b (1).", []), ("C d.", [])]),  # it may be anything
        ("---\n\nA b.", [("A b.", [])]),
        ("", []),
    ],
)
def test_citations_are_read(raw: str, sentences: list[tuple[str, list[int]]]) -> None:
    assert [(s.text, [c.source for c in s.citations]) for s in support.cited(raw)] == sentences


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("The drug lowers blood pressure.", "The drug does not lower blood pressure."),
        ("The cache is shared between tenants.", "The cache isn't shared between tenants."),
        ("The vault is open at night.", "The vault isn’t open at night."),
        ("Smoking has an effect on the heart.", "Smoking has no effect on the heart."),
        ("Old keys expire after a week.", "Old keys never expire after a week."),
        ("Users can change the limit.", "Users cannot change the limit."),
        ("Backups are made at night. The keys are kept in the vault.", "The keys are not kept in the vault."),
    ],
)
def test_what_negates_its_source_is_not_supported_by_it(source: str, claim: str) -> None:
    analyzed = Analyzer("english").terms
    assert support.contradicts(claim, source, analyzed)
    assert support.contradicts(source, claim, analyzed) or source.startswith("Backups")  # the other way round
    assert not support.contradicts(source, source, analyzed)
    assert not support.contradicts(claim, claim, analyzed)


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("Keys are rotated every month.", "Keys are rotated every month, not every week."),  # adds a contrast
        ("The server need not be restarted.", "Restarting the server is unnecessary."),
        ("Do not share the keys.", "The keys must be kept private."),
        ("The drug lowers blood pressure without side effects.", "The drug has no side effects."),
        ("The drug lowers blood pressure.", "The drug not only lowers blood pressure."),
        ("The drug failed to lower blood pressure.", "The drug does not lower blood pressure."),
        ("It is not true in mice. In humans the drug lowers blood pressure.", "The drug lowers blood pressure."),
        # Two sentences are as much like it: one of them agrees.
        (
            "The drug does not lower pressure in mice. It is known that the drug lowers pressure.",
            "The drug lowers pressure.",
        ),
        ("Backups are not automatically made at night.", "Backups are made at night."),
        ("Some were treated, whereas others were never treated.", "Some were treated."),
        ("No association of weight and age was found.", "Weight is positively associated with strokes."),
        ("Does the drug lower blood pressure?", "The drug does not lower blood pressure."),
        ("O vírus foi isolado em Lisboa.", "O vírus foi isolado no isolado de Lisboa."),  # "no" is "in the" there
    ],
)
def test_what_may_agree_is_not_held_to_contradict(source: str, claim: str) -> None:
    assert not support.contradicts(claim, source, Analyzer("english").terms)


UNCLEAR = (
    "fails,lacks,absent,refuses,deny,denies,denied,prevents,avoids,prohibits,forbids,rejects,excludes,rule out,"
    "rules out,ruled out,free of,free from,instead,rather,only,except,unless,until,few,little,hardly,barely,scarcely,"
    "rarely,seldom,none,nothing,nowhere,nobody,neither,false,wrong,impossible,nonsense,unlikely,ineffective,inactive,incapable,"
    "insufficient,incorrect,invalid,inaccurate,disabled,disagrees,discontinued,disallowed,disproved,useless,"
    "if,whether,may,might,could,would"
)


@pytest.mark.parametrize("said", UNCLEAR.split(","))
def test_a_sentence_that_may_negate_in_another_way_is_not_judged(said: str) -> None:
    analyzed = Analyzer("english").terms
    assert not support.contradicts(
        "The drug does not lower pressure.", f"It is {said} the drug lowers pressure", analyzed
    )


@pytest.mark.parametrize("said", ["just", "all", "each", "very", "so", "more"])
def test_what_is_negated_in_part_is_not_judged(said: str) -> None:
    analyzed = Analyzer("english").terms
    assert not support.contradicts("The pumps are heated.", f"The pumps are not {said} heated.", analyzed)
    assert support.contradicts("The pumps are heated.", "The pumps are not heated.", analyzed)


@pytest.mark.parametrize("sign", ".,;:()–—")
def test_what_is_negated_stands_in_the_same_clause(sign: str) -> None:
    analyzed = Analyzer("english").terms
    assert not support.contradicts("The keys are rotated.", f"The answer is no{sign} keys are rotated.", analyzed)


@pytest.mark.parametrize("said", ["underground", "united", "universally", "unionised", "unique"])
def test_words_that_only_look_negated_hide_no_contradiction(said: str) -> None:
    analyzed = Analyzer("english").terms
    assert support.contradicts(f"The pumps are {said} and not heated.", f"The pumps are {said} and heated.", analyzed)


@pytest.mark.parametrize("word", "the of is are was were it and with by to from after".split())  # noqa: SIM905
def test_one_word_tells_that_a_sentence_is_english(word: str) -> None:
    analyzed = Analyzer("english").terms
    assert support.contradicts(f"Pumps {word} never heat.", f"Pumps {word} heat.", analyzed)


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("Las llaves se cambian cada mes.", "Las llaves no se cambian cada mes."),
        ("Le chiavi si cambiano ogni mese.", "Le chiavi non si cambiano ogni mese, no."),
        ("O servidor está no Porto.", "O servidor está Porto."),
        ("Die Schlüssel wechseln.", "Die Schlüssel wechseln not."),
        ("鍵は毎月変わる。", "鍵は毎月変わらない。"),
    ],
)
def test_other_languages_are_not_judged(source: str, claim: str) -> None:
    for language in ("english", "spanish"):
        assert not support.contradicts(claim, source, Analyzer(language).terms)
        assert not support.contradicts(source, claim, Analyzer(language).terms)


@pytest.mark.parametrize("unit", [" ", "\n", "[1 ", "【1", "not ", "un", '."', "1,"])
def test_long_texts_are_read_in_little_time(unit: str) -> None:
    """A document may hold a sentence of any length; what took minutes for each of these takes no second."""
    text = f"The key is kept. {unit * (100_000 // len(unit))}x\n"
    started = time.monotonic()
    support.contradicts(text, f"{text} not", str.split)
    support.cited(text)
    answering_module._MARKS.sub("", text)
    answering_module._OPEN_MARK.sub("", text)
    assert time.monotonic() - started < 5


def test_a_number_of_another_sentence_supports_nothing() -> None:
    analyzed = Analyzer("english").terms
    assert support.contradicts("The signing keys rotate every 7 days.", KEYS, analyzed)
    assert not support.contradicts("The signing keys rotate every 30 days.", KEYS, analyzed)
    assert not support.contradicts("Old keys stay valid for 7 days after 30 days.", KEYS, analyzed)


def test_a_sentence_that_says_the_opposite_is_marked(answering: Answering) -> None:
    reply = "The signing keys do not rotate every 30 days. [1] Backups are made at night. [2]"
    answer = answering(HITS, reply).answer(QUESTION, Asked())
    assert [sentence.supported for sentence in answer.sentences] == [False, True]
    assert answer.sentences[0].support == 0.0


def test_features_of_support_by_hand() -> None:
    passage = "The Rhine is 1,233 km long. It ends in Holland."
    windows = support.windows(passage)
    assert windows == ["The Rhine is 1,233 km long.", "It ends in Holland.", passage]
    claim = "In Basel the Rhine is 1,233 km and 9 m wide."
    model = WordsEmbedder()
    vectors = model.embed_documents([claim, *windows])
    told = support.features(claim, passage, windows, vectors[0], vectors[1:], terms)
    assert told["numbers"] == 0.5
    assert told["names"] == 0.5  # Basel; Rhine is there
    assert told["cosine"] == pytest.approx(float((vectors[1:] @ vectors[0]).max()))
    assert 0 < told["window"] == told["coverage"] < 1
