"""What an answer is made of: sources, sentences, citations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nearest.contract import Spent

NOT_FOUND = "This is not in these documents."
UNSUPPORTED = "[unsupported]"


@dataclass(frozen=True, slots=True)
class Source:
    """A passage, whole: one chunk, or neighbouring chunks of one document joined.

    number: what citations name, from 1. chunks: ids of its hits (`document#ordinal`). also: other documents
    that hold the same passage. start: its place in the document's text. score: of its best hit. cosine: that of
    its best hit with the question; None where the search did not tell.
    """

    number: int
    document_id: str
    chunks: tuple[str, ...]
    text: str
    start: int
    score: float
    cosine: float | None = None
    also: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    page: int | None = None
    headings: Sequence[str] = ()


class Sources(tuple[Source, ...]):
    """What an answer may cite; the first part of a stream."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Citation:
    """source: the number that was cited, which need not exist. support: the probability, 0 to 1, that the passage
    holds what the sentence says; 1 for a quotation."""

    source: int
    support: float
    supported: bool


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, without its citation marks. start, end: its place, marks included, in `Answer.raw`."""

    text: str
    citations: tuple[Citation, ...]
    start: int
    end: int

    @property
    def supported(self) -> bool:
        """Whether a passage that it cites holds it."""
        return any(citation.supported for citation in self.citations)

    @property
    def support(self) -> float:
        return max((citation.support for citation in self.citations), default=0.0)


class Turn(NamedTuple):
    """A question of a conversation, as it was asked and as it stands alone, and the answer's text."""

    question: str
    standalone: str
    answer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and all that is needed to check it.

    question: as asked. standalone: as searched for; other than `question` in a conversation. raw: the text as it
    was generated, with its marks `[1]`. found: False where the documents do not tell. confidence: the
    probability, 0 to 1, that the sources hold the answer, times the share of the sentences that are
    supported; see `confidence`. calibrated: whether that is a probability: of quoted sentences, with the embedding
    model that the coefficients were fitted with; else `confidence` ranks answers alone. generator: the model's name, or
    `extractive`. notice: what went otherwise than asked; None if nothing did. omitted: passages left out for
    the budget. spent: by the generator, to rewrite a question as well. embedding: by the embedding model, for the
    query and to weigh and check sentences; its tokens are `input_tokens`. reranking: by the reranker. seconds: wall
    time.
    """

    question: str
    standalone: str
    raw: str
    sentences: tuple[Sentence, ...]
    sources: Sources
    found: bool
    confidence: float
    calibrated: bool
    generator: str
    notice: str | None = None
    omitted: int = 0
    spent: Spent = field(default_factory=Spent)
    embedding: Spent = field(default_factory=Spent)
    reranking: Spent = field(default_factory=Spent)
    seconds: float = 0.0

    @property
    def dollars(self) -> float | None:
        """Of all models together; None where the price of one that was used is not known."""
        return (self.spent + self.embedding + self.reranking).dollars

    @property
    def text(self) -> str:
        """`raw`, with a mark after each sentence that no passage it cites supports."""
        told, at = "", 0
        for sentence in self.sentences:
            if not sentence.supported:
                told += f"{self.raw[at : sentence.end]} {UNSUPPORTED}"
                at = sentence.end
        return told + self.raw[at:]

    @property
    def cited(self) -> tuple[Source, ...]:
        """The sources that a supported citation names."""
        numbers = {c.source for sentence in self.sentences for c in sentence.citations if c.supported}
        return tuple(source for source in self.sources if source.number in numbers)

    def to_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "standalone": self.standalone,
            "answer": self.text,
            "found": self.found,
            "confidence": round(self.confidence, 4),
            "calibrated": self.calibrated,
            "sentences": [
                {
                    "text": sentence.text,
                    "supported": sentence.supported,
                    "citations": [
                        {"source": c.source, "support": round(c.support, 4), "supported": c.supported}
                        for c in sentence.citations
                    ],
                }
                for sentence in self.sentences
            ],
            "sources": [
                {
                    "number": s.number,
                    "document_id": s.document_id,
                    "chunks": list(s.chunks),
                    "also": list(s.also),
                    "start": s.start,
                    "page": s.page,
                    "headings": list(s.headings),
                    "score": s.score,
                    "text": s.text,
                    "metadata": dict(s.metadata),
                }
                for s in self.sources
            ],
            "omitted": self.omitted,
            "generator": self.generator,
            "notice": self.notice,
            "usage": {
                "generator": _usage(self.spent),
                "embedder": _usage(self.embedding),
                "reranker": _usage(self.reranking),
                "dollars": self.dollars,
            },
            "seconds": round(self.seconds, 3),
        }


def _usage(spent: Spent) -> dict[str, Any]:
    return {
        "requests": spent.requests,
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "dollars": spent.dollars,
    }
