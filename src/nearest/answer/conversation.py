"""A conversation: questions that need the ones before them are rewritten to stand alone, then searched for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nearest.answer import prompt
from nearest.answer.answering import Answerer, Asked, Part, failed, said
from nearest.answer.parts import Answer, Turn
from nearest.contract import Spent
from nearest.errors import InvalidInput, InvalidQuery

_LONGEST = 600  # characters of a rewritten question
_TOKENS = 200
# Words that point back, and beginnings that go on. English; other languages need a generator.
_BACK = re.compile(
    r"\b(?:he|she|it|they|him|her|hers|his|its|them|their|theirs|this|these|those)\b"
    r"|^\s*(?:and|but|so|also|what about|how about)\b"
    r"|^\s*(?:why|when|where|who|how many|how much)\W*(?:\w+\W*)?$",
    re.IGNORECASE,
)


class Conversation:
    """Questions and answers in their order. turns: what was answered here so far. history: the same as texts, after
    those that it was begun with, for it to be kept and gone on with. keep: turns that a rewrite may see.

    With a generator it rewrites; without one, or where that fails, a question that points back (`it`, `and what
    about ...`) is searched for together with the last that did not.
    """

    def __init__(self, answerer: Answerer, asked: Asked, keep: int = 6, history: Iterable[Sequence[str]] = ()) -> None:
        self.turns: list[Answer] = []
        self.history = [_turn(told) for told in history]
        self._answerer = answerer
        self._asked = asked
        self._keep = keep

    def ask(self, question: str) -> Answer:
        """The answer, which is then a turn."""
        for _ in self.stream(question):
            pass
        return self.turns[-1]

    def stream(self, question: str) -> Iterator[Part]:
        """See `Answerer.stream`; the answer is a turn once it is complete."""
        if not isinstance(question, str) or not question.strip():
            raise InvalidQuery("the question is empty")
        standalone, spent, notice = self.standalone(question)
        for part in self._answerer.stream(question, self._asked, standalone):
            if isinstance(part, Answer):
                notices = [told for told in (notice, part.notice) if told]
                part = replace(part, spent=spent + part.spent, notice="; ".join(notices) or None)
                self.turns.append(part)
                self.history.append(Turn(part.question, part.standalone, part.raw))
            yield part

    def standalone(self, question: str) -> tuple[str, Spent, str | None]:
        """The question as it can be understood alone; what rewriting it used; and what went wrong, if anything."""
        if not self.history:
            return question, Spent(), None
        before = next((turn for turn in reversed(self.history) if not _BACK.search(turn.question)), self.history[0])
        simple = f"{before.standalone} {question}" if _BACK.search(question) else question
        generator = self._answerer.generator
        if generator is None:
            return simple, Spent(), None
        turns = [(turn.standalone, turn.answer) for turn in self.history[-self._keep :]]
        try:
            text, spent = generator.complete(prompt.rewrite(turns, question), max_tokens=_TOKENS)
        except Exception as error:  # noqa: BLE001 -- it may be anybody's code
            return simple, failed(error), f"the question could not be rewritten ({said(error)})"
        rewriting, spent = spent, replace(spent, stopped=None)  # that is about the answer
        if rewriting.stopped:
            return simple, spent, f"the question could not be rewritten ({generator.name} stopped: {rewriting.stopped})"
        lines = text.strip().splitlines()
        if len(lines) != 1 or len(lines[0]) > _LONGEST:
            return simple, spent, f"{generator.name} gave no question of one line when asked to rewrite this one"
        return lines[0].strip(), spent, None


def _turn(told: Sequence[str]) -> Turn:
    if isinstance(told, str) or len(told) != 3 or not all(isinstance(text, str) for text in told):
        raise InvalidInput(f"a turn is a question, the same standing alone, and its answer, got {told!r}")
    return Turn(*told)
