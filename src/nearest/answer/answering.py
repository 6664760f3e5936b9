"""From a question to an answer: search, pack, quote or generate, check. One path, streamed; `answer` awaits its end."""

from __future__ import annotations

import re
import time
from collections import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nearest.answer import confidence, extract, prompt, support
from nearest.answer.context import pack
from nearest.answer.extract import Terms
from nearest.answer.parts import NOT_FOUND, Answer, Citation, Sentence, Sources
from nearest.contract import Embedder, Generator, Hit, Spent
from nearest.errors import InvalidQuery, NearestError
from nearest.filters import Filter

EXTRACTIVE = "extractive"
Part = Sources | str | Sentence | Answer
"""What a stream gives: the sources; pieces of text as they come; each sentence once it is checked; the answer."""
Steps = abc.Generator[Part, None, Answer]
_ABSENT = re.compile(rf"\W*{prompt.ABSENT}\W*", re.IGNORECASE)
_MARKS = re.compile(r"\s+(?:\[\d{1,4}\])+(?=[\s.,;:!?)]|$)")  # of footnotes, not of code such as a[0]
_OPEN_MARK = re.compile(r"\s*\[[\d,;\s]*$")  # a citation that is still being written


class Search(Protocol):
    def __call__(
        self, query: str, *, k: int, where: Mapping[str, Any] | Filter | None, mode: Any, explain: bool
    ) -> Sequence[Hit]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """How to answer. k: hits. budget: tokens of all sources together, as the embedding model counts them.

    max_tokens: of a generated answer. sentences: of an extractive one, at most.
    """

    k: int = 8
    where: Mapping[str, Any] | Filter | None = None
    mode: str = "hybrid"
    budget: int = 3000
    max_tokens: int = 800
    sentences: int = 3

    def __post_init__(self) -> None:
        for name in ("budget", "max_tokens", "sentences"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidQuery(f"{name} must be an integer of at least 1, got {value!r}")


class Answerer:
    """Answers from one collection. terms: its searchable words. generator: None for extractive answers."""

    def __init__(
        self, search: Search, embedder: Callable[[], Embedder], terms: Terms, generator: Generator | None = None
    ) -> None:
        self._search = search
        self._embedder = embedder
        self._terms = terms
        self.generator = generator

    def answer(self, question: str, asked: Asked, standalone: str | None = None) -> Answer:
        """See `stream`."""
        answer = None
        for part in self.stream(question, asked, standalone):
            if isinstance(part, Answer):
                answer = part
        assert answer is not None
        return answer

    def stream(self, question: str, asked: Asked, standalone: str | None = None) -> Iterator[Part]:
        """The parts of an answer; the last is the whole.

        standalone: the question to search for, where the one asked needs the conversation to be understood. A
        generator that fails does not end the stream: sentences are quoted from the sources instead, and `notice`
        says so. Raises InvalidQuery or InvalidFilter, and what the store raises.
        """
        if not isinstance(question, str) or not question.strip():
            raise InvalidQuery("the question is empty")
        started = time.perf_counter()
        query = standalone or question
        embedder = self._embedder()
        hits = self._search(query, k=asked.k, where=asked.where, mode=asked.mode, explain=True)
        sources, omitted = pack(hits, lambda text: len(embedder.tokenizer.encode(text).ids), asked.budget)
        yield sources
        name = self.generator.name if self.generator else EXTRACTIVE
        calibrated = embedder.name == confidence.FITTED_WITH
        blank = Answer(question, query, "", (), sources, False, 0.0, calibrated, name, None, omitted)
        if not sources:
            notice = f"no passage fits the budget of {asked.budget} tokens" if hits else "the search found nothing"
            yield NOT_FOUND
            answer = replace(blank, raw=NOT_FOUND, notice=notice)
        elif self.generator is None:
            answer = yield from self._quoted(blank, asked, embedder)
        else:
            answer = yield from self._generated(blank, asked, embedder, self.generator)
        yield replace(answer, seconds=time.perf_counter() - started)

    def _quoted(self, blank: Answer, asked: Asked, embedder: Embedder) -> Steps:
        evidence = extract.evidence(blank.standalone, blank.sources, embedder, self._terms, asked.sentences)
        if evidence.probability < confidence.ENOUGH:
            yield NOT_FOUND
            return replace(blank, raw=NOT_FOUND, confidence=evidence.probability)
        raw, quoted = "", []
        # In reading order: sentences of one source stay together, as they follow each other there.
        best = {c.source.number: i for i, c in reversed(list(enumerate(evidence.best)))}
        for candidate in sorted(evidence.best, key=lambda c: (best[c.source.number], c.start)):
            number = candidate.source.number
            # Marks of the source's own would pass for ours.
            text = " ".join(_MARKS.sub("", candidate.text).split()) or " ".join(candidate.text.split())
            piece = f"{' ' if raw else ''}{text} [{number}]"
            start = len(raw) + bool(raw)
            raw += piece
            quoted.append(Sentence(text, (Citation(number, 1.0, True),), start, len(raw)))
            yield piece
            yield quoted[-1]
        return replace(blank, raw=raw, sentences=tuple(quoted), found=True, confidence=evidence.probability)

    def _generated(self, blank: Answer, asked: Asked, embedder: Embedder, generator: Generator) -> Steps:
        raw, told, spent = "", "", Spent()
        failure: NearestError | None = None
        notice: str | None
        checked: list[Sentence] = []
        messages = prompt.answer(blank.standalone, blank.sources)
        try:
            for piece in generator.stream(messages, max_tokens=asked.max_tokens):
                if isinstance(piece, Spent):
                    spent += piece
                    continue
                raw += piece
                if prompt.ABSENT.startswith(raw.strip().upper()):
                    continue  # it may turn out to be no answer
                yield raw[len(told) :]
                told = raw
                complete = support.cited(_OPEN_MARK.sub("", raw))[len(checked) : -1]
                for sentence in complete:
                    checked.append(support.check(sentence, blank.sources, embedder, self._terms))
                    yield checked[-1]
        except NearestError as error:
            failure = error
            spent += Spent(requests=int(error.context.get("attempts", 1)), dollars=None)
        if not raw.strip():
            why = "gave no text" if failure is None else f"failed ({failure.kind}: {failure})"
            notice = f"{generator.name} {why}; sentences of the sources are quoted instead"
            answer = yield from self._quoted(replace(blank, generator=EXTRACTIVE), asked, embedder)
            return replace(answer, notice=notice, spent=spent)
        if _ABSENT.fullmatch(raw):
            yield NOT_FOUND
            return replace(blank, raw=NOT_FOUND, spent=spent)
        if told != raw:
            yield raw[len(told) :]
        for sentence in support.cited(raw)[len(checked) :]:
            checked.append(support.check(sentence, blank.sources, embedder, self._terms))
            yield checked[-1]
        notice = None
        if failure is not None:
            notice = f"the answer is cut off: {generator.name} failed ({failure.kind}: {failure})"
        elif spent.output_tokens >= asked.max_tokens:
            notice = f"the answer is cut off at max_tokens={asked.max_tokens}"
        answer = replace(blank, raw=raw, sentences=tuple(checked), found=True, notice=notice, spent=spent)
        # All sources, since the coefficients were fitted on those.
        return replace(answer, confidence=self._confidence(answer, embedder), calibrated=False)

    def _confidence(self, answer: Answer, embedder: Embedder) -> float:
        evidence = extract.evidence(answer.standalone, answer.sources, embedder, self._terms)
        return confidence.product(evidence.probability, [sentence.supported for sentence in answer.sentences])
