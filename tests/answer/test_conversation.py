"""Follow-up questions."""

from __future__ import annotations

import pytest

from nearest.answer import Asked, Conversation
from nearest.errors import ConnectionFailed, InvalidQuery
from tests.answer.conftest import Answering, Scripted, hit

HITS = [hit("a", "Ada Lovelace was born in London. She wrote about the Analytical Engine.")]


def test_a_follow_up_is_rewritten_to_stand_alone(answering: Answering) -> None:
    answerer = answering(
        HITS,
        "Ada Lovelace was born in London. [1]",
        "What did Ada Lovelace write about?\n",
        "The Analytical Engine. [1]",
    )
    conversation = Conversation(answerer, Asked())
    first = conversation.ask("Where was Ada Lovelace born?")
    second = conversation.ask("And what did she write about?")
    assert first.standalone == first.question
    assert second.standalone == "What did Ada Lovelace write about?"
    assert second.question == "And what did she write about?"
    assert second.spent.requests == 2
    assert second.spent.dollars == pytest.approx(0.002)
    assert conversation.turns == [first, second]
    assert isinstance(answerer.generator, Scripted)
    _, rewriting, answer = answerer.generator.prompts
    assert "Ada Lovelace was born in London. [1]" in rewriting[1].text
    assert "What did Ada Lovelace write about?" in answer[1].text


@pytest.mark.parametrize(
    ("question", "together"),
    [
        ("And what did she write about?", True),
        ("What about Babbage?", True),
        ("Why?", True),
        ("Is it in London?", True),
        ("Where was Charles Babbage born?", False),
    ],
)
def test_without_a_model_a_question_that_points_back_goes_with_the_one_before(
    answering: Answering, question: str, together: bool
) -> None:
    conversation = Conversation(answering(HITS), Asked())
    conversation.ask("Where was Ada Lovelace born?")
    expected = f"Where was Ada Lovelace born? {question}" if together else question
    assert conversation.ask(question).standalone == expected


def test_a_chain_of_such_questions_goes_with_the_last_that_stood_alone(answering: Answering) -> None:
    conversation = Conversation(answering(HITS), Asked())
    for question in ("Where was Ada Lovelace born?", "Where was Charles Babbage born?", "And when?"):
        conversation.ask(question)
    assert conversation.ask("Is it far?").standalone == "Where was Charles Babbage born? Is it far?"


def test_the_requests_of_a_rewrite_that_fails_are_counted(answering: Answering) -> None:
    gone = ConnectionFailed("gone", attempts=3)
    conversation = Conversation(answering(HITS, "London. [1]", gone, "The Analytical Engine. [1]"), Asked())
    conversation.ask("Where was Ada Lovelace born?")
    assert conversation.ask("What did she write about?").spent.requests == 4


@pytest.mark.parametrize("reply", [ConnectionFailed("gone"), RuntimeError("boom"), "Two\nlines.", "", "x" * 1000])
def test_a_rewrite_that_fails_is_told_and_the_answer_comes(answering: Answering, reply: str | Exception) -> None:
    conversation = Conversation(answering(HITS, "London. [1]", reply, "The Analytical Engine. [1]"), Asked())
    conversation.ask("Where was Ada Lovelace born?")
    answer = conversation.ask("What did she write about?")
    assert answer.standalone == "Where was Ada Lovelace born? What did she write about?"
    assert answer.notice is not None
    assert answer.found


def test_an_empty_question_is_no_turn(answering: Answering) -> None:
    conversation = Conversation(answering(HITS), Asked())
    with pytest.raises(InvalidQuery):
        conversation.ask(" ")
    assert conversation.turns == []


def test_a_rewrite_that_is_cut_off_is_not_searched_for(answering: Answering) -> None:
    answerer = answering(HITS, "London. [1]", "What did Ada Love", "The Analytical Engine. [1]")
    conversation = Conversation(answerer, Asked())
    conversation.ask("Where was Ada Lovelace born?")
    assert isinstance(answerer.generator, Scripted)
    answerer.generator.stopped = "max_tokens"
    answer = conversation.ask("What did she write about?")
    assert answer.standalone == "Where was Ada Lovelace born? What did she write about?"
    assert answer.notice is not None
    assert answer.notice.startswith("the question could not be rewritten (test:scripted stopped: max_tokens)")
