"""From a question to an answer: search, pack, quote or generate, check. One path, streamed; `answer` awaits its end."""

from __future__ import annotations

import re
import time
from collections import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nearest.answer import confidence, extract, prompt, support
from nearest.answer.context import pack
from nearest.answer.extract import Terms
from nearest.answer.parts import NOT_FOUND, Answer, Citation, Sentence, Sources
from nearest.contract import Embedder, Generator, Hit, Message, Reranker, Spent
from nearest.errors import AccessDenied, InvalidInput, InvalidQuery, NearestError
from nearest.filters import Filter

EXTRACTIVE = "extractive"
Part = Sources | str | Sentence | Answer
"""What a stream gives: the sources; pieces of text as they come; each sentence once it is checked; the answer."""
Steps = abc.Generator[Part, None, Answer]
_ABSENT = re.compile(rf"\W*{prompt.ABSENT}[\W\d]*", re.IGNORECASE)
_MARKS = re.compile(
    r"(?<!\s)\s+(?:\[\d{1,4}\]|【\d{1,4}】)+(?=[\s.,;:!?)]|$)"
)  # of footnotes, not of code such as a[0]
_OPEN_MARK = re.compile(r"(?<!\s)\s*(?:\[[\d,;\s]*|【[^【】\n]*)$")  # a citation that is still being written


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
    """Answers from one collection. terms: its searchable words. generator: None for extractive answers.

    reranker: the one that `search` uses, if any, for what it costs.
    """

    def __init__(
        self,
        search: Search,
        embedder: Callable[[], Embedder],
        terms: Terms,
        generator: Generator | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        if generator is not None and not isinstance(generator, Generator):
            raise InvalidInput(f"generator must be provider:model, or a Generator, got {generator!r}")
        self._search = search
        self._reranker = reranker
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
        generator that fails, whatever it raises, does not end the stream: sentences are quoted from the sources
        instead, and `notice` says so. Raises InvalidQuery, also for a budget that no passage fits, or InvalidFilter,
        and what the store raises.
        """
        if not isinstance(question, str) or not question.strip():
            raise InvalidQuery("the question is empty")
        started = time.perf_counter()
        query = standalone or question
        embedder = self._embedder()
        bill = _Bill(embedder, self._reranker)
        with bill.counting():
            hits = self._search(query, k=asked.k, where=asked.where, mode=asked.mode, explain=True)
        skipped = getattr(hits, "skipped", None)
        if skipped is not None:
            bill.reranking += Spent(dollars=None)  # what it did until its time was over, nobody told
        sources, omitted = pack(hits, lambda text: len(embedder.tokenizer.encode(text).ids), asked.budget)
        if omitted and not sources:
            raise InvalidQuery(
                f"no passage that was found fits the budget of {asked.budget} tokens; give a larger budget, or cut the "
                "documents into smaller passages"
            )
        yield sources
        name = self.generator.name if self.generator else EXTRACTIVE
        calibrated = embedder.name == confidence.FITTED_WITH
        blank = Answer(question, query, "", (), sources, False, 0.0, calibrated, name, None, omitted)
        if not sources:
            yield NOT_FOUND
            answer = replace(blank, raw=NOT_FOUND, notice="the search found nothing")
        elif self.generator is None:
            answer = yield from self._quoted(blank, asked, bill)
        else:
            answer = yield from self._generated(blank, asked, bill, self.generator)
        if skipped is not None:
            notice = "; ".join(told for told in (f"not reranked: {skipped}", answer.notice) if told)
            answer = replace(answer, notice=notice)
        seconds = time.perf_counter() - started
        yield replace(answer, embedding=bill.embedding, reranking=bill.reranking, seconds=seconds)

    def _quoted(self, blank: Answer, asked: Asked, bill: _Bill) -> Steps:
        with bill.counting():
            evidence = extract.evidence(blank.standalone, blank.sources, bill.embedder, self._terms, asked.sentences)
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

    def _generated(self, blank: Answer, asked: Asked, bill: _Bill, generator: Generator) -> Steps:
        raw, told, spent = "", "", Spent()
        failure: Exception | None = None
        checked: list[Sentence] = []
        messages = prompt.answer(blank.standalone, blank.sources)
        for piece in _pieces(generator, messages, asked.max_tokens):
            if isinstance(piece, Exception):
                failure = piece
                spent += failed(piece)
                continue
            if isinstance(piece, Spent):
                spent += piece
                continue
            raw += piece
            if prompt.ABSENT.startswith(raw.strip().upper()):
                continue  # it may turn out to be no answer
            yield raw[len(told) :]
            told = raw
            for sentence in support.cited(_OPEN_MARK.sub("", raw))[len(checked) : -1]:
                checked.append(self._checked(sentence, blank, bill))
                yield checked[-1]
        if failure is not None:
            ended = f"{generator.name} failed ({said(failure)})"
        elif spent.stopped == "max_tokens":
            ended = f"{generator.name} stopped at max_tokens={asked.max_tokens}"
        else:
            ended = f"{generator.name} stopped: {spent.stopped}" if spent.stopped else ""
        if not raw.strip():
            notice = ended or f"{generator.name} gave no text"
            notice += "; sentences of the sources are quoted instead"
            answer = yield from self._quoted(replace(blank, generator=EXTRACTIVE), asked, bill)
            return replace(answer, notice=notice, spent=spent)
        if _ABSENT.fullmatch(raw):
            yield NOT_FOUND
            return replace(blank, raw=NOT_FOUND, spent=spent)
        if told != raw:
            yield raw[len(told) :]
        for sentence in support.cited(raw)[len(checked) :]:
            checked.append(self._checked(sentence, blank, bill))
            yield checked[-1]
        cut = f"the answer is cut off: {ended}" if ended else None
        answer = replace(blank, raw=raw, sentences=tuple(checked), found=True, notice=cut, spent=spent)
        # All sources, since the coefficients were fitted on those.
        return replace(answer, confidence=self._confidence(answer, bill), calibrated=False)

    def _checked(self, sentence: Sentence, blank: Answer, bill: _Bill) -> Sentence:
        with bill.counting():
            return support.check(sentence, blank.sources, bill.embedder, self._terms)

    def _confidence(self, answer: Answer, bill: _Bill) -> float:
        with bill.counting():
            evidence = extract.evidence(answer.standalone, answer.sources, bill.embedder, self._terms)
        return confidence.product(evidence.probability, [sentence.supported for sentence in answer.sentences])


class _Bill:
    """What one answer has of its models, by what they were asked for in the meantime: counted only while they are
    asked, so that little of what others ask of them at the same time is among it."""

    def __init__(self, embedder: Embedder, reranker: Reranker | None) -> None:
        self.embedder = embedder
        self._reranker = reranker
        self.embedding = Spent()
        self.reranking = Spent()

    @contextmanager
    def counting(self) -> Iterator[None]:
        used = self.embedder.usage
        before = Spent() if self._reranker is None else self._reranker.spent
        yield
        some = self.embedder.usage - used
        unknown = some.tokens > 0 and self.embedder.price is None
        self.embedding += Spent(some.requests, some.tokens, 0, None if unknown else some.dollars)
        if self._reranker is not None:
            now = self._reranker.spent
            priced = now.dollars is not None and before.dollars is not None
            dollars = (now.dollars or 0.0) - (before.dollars or 0.0) if priced or now == before else None
            self.reranking += Spent(
                now.requests - before.requests, now.input_tokens - before.input_tokens,
                now.output_tokens - before.output_tokens, dollars,
            )  # fmt: skip


def _pieces(generator: Generator, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Spent | Exception]:
    """What a generator gives; what it raises comes last, whatever it is: it may be anybody's code."""
    try:
        for piece in generator.stream(messages, max_tokens=max_tokens):
            if not isinstance(piece, str | Spent):
                raise TypeError(f"a piece of text must be a str, got {piece!r}")
            yield piece
    except Exception as error:  # noqa: BLE001 -- told in the answer's notice
        yield error


def failed(error: Exception) -> Spent:
    """What a request to a generator that ended so had of it, as far as is known."""
    attempts = error.context.get("attempts", 1) if isinstance(error, NearestError) else 1
    refused = isinstance(error, AccessDenied)  # no key, or a wrong one: nobody bills for that
    return Spent(requests=int(attempts), dollars=0.0 if refused else None)


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
