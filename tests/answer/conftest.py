"""What the answers' tests share: a scripted generator, and a small collection with a model that counts words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from nearest.answer import Answerer
from nearest.contract import Float32, Generator, Hit, Message, Spent
from tests.fakes import HashEmbedder


class WordsEmbedder(HashEmbedder):
    """The cosine of two texts grows with the words that they share."""

    def __init__(self) -> None:
        super().__init__(256, name="fake:words")

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in terms(text):
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
            row[0] += 0.01  # a text without words has a vector too
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(texts) else rows


def terms(text: str) -> list[str]:
    return [
        w for w in re.findall(r"\w+", text.lower()) if w not in {"the", "a", "is", "are", "of", "how", "what", "in"}
    ]


class Scripted(Generator):
    """Says what it was told to, a reply a request, four characters a piece; an error is raised. Keeps prompts."""

    name = "test:scripted"
    stopped: str | None = None

    def __init__(self, *replies: str | Exception | tuple[str, Exception]) -> None:
        self.replies = list(replies)
        self.prompts: list[list[Message]] = []

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str | Spent]:
        self.prompts.append(list(messages))
        reply = self.replies.pop(0)
        text, error = reply if isinstance(reply, tuple) else (reply, None)
        if isinstance(text, Exception):
            raise text
        for at in range(0, len(text), 4):
            yield text[at : at + 4]
        if error is not None:
            raise error
        yield Spent(1, 100, 20, 0.001, self.stopped)


def hit(document: str, text: str, *, chunk: int = 0, start: int = 0, score: float = 1.0, **metadata: object) -> Hit:
    payload = {"document_id": document, "chunk": chunk, "start": start, "text": text, "metadata": metadata}
    return Hit(f"{document}#{chunk}", {}, payload, score)


Answering = Callable[..., Answerer]


@pytest.fixture
def answering() -> Answering:
    """An answerer over given hits."""

    def make(hits: Sequence[Hit], *replies: str | Exception | tuple[str, Exception]) -> Answerer:
        model = WordsEmbedder()
        return Answerer(
            lambda query, *, k, where, mode, explain: list(hits)[:k], lambda: model, terms,
            Scripted(*replies) if replies else None,
        )  # fmt: skip

    return make
