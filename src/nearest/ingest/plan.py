"""What adding documents would do and cost, before anything is written or any provider asked.

A `Planner` takes the places of the writer and the ledger, so that whatever reads documents for `add` is the
same: files, URLs, queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from nearest.contract import (
    Chunker,
    Document,
    Embedder,
    Failure,
    FieldKind,
    Float32,
    LateInteraction,
    Usage,
    check_document,
    check_fields,
    token_counts,
)
from nearest.errors import InvalidDocument, InvalidInput, UnsupportedError
from nearest.ingest.duplicates import Duplicates
from nearest.ingest.write import (
    MARGIN,
    Budget,
    Report,
    Tagged,
    Writer,
    check_long,
    content_hash,
    embedded,
    taken,
    text_key,
    why_taken,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer

    from nearest.ledger import Ledger


_SAMPLE = 32  # texts
_ENOUGH = 10_000  # tokens; the time of fewer is that of loading the model
_SPECIAL = 16  # tokens that models put around a text, and more


@dataclass(slots=True)
class Plan:
    """documents: to be embedded; unchanged, skipped, failed, chunks: as in Report. duplicates: chunks to be left out.

    usage: of the model, with what its cache has. estimated: the tokens are, since the model's own tokenizer is not at
    hand. sentences: that the chunker embeds to find its cuts, so that the chunks are estimated too; None for a chunker
    that does not. price: dollars a million tokens; None where it is unknown, and then so are the dollars. seconds: of
    embedding, at the rate of earlier runs, or of some texts where the model runs here, and of token vectors; None
    where neither tells. over: whether it may cost more than the budget. unknown: what only the run will find out.
    """

    documents: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    duplicates: int = 0
    usage: Usage = field(default_factory=Usage)
    estimated: bool = False
    sentences: int | None = None
    price: float | None = None
    seconds: float | None = None
    budget: float | None = None
    over: bool = False
    unknown: list[str] = field(default_factory=list)


class Unasked(Embedder):
    """A model whose dimension nobody knows, for a plan: it tells what it tells without a request, and gives nothing."""

    dimension = 1
    remote = True
    unprobed = True

    def __init__(self, inner: Embedder) -> None:
        self.name, self.fingerprint, self.max_tokens = inner.name, inner.fingerprint, inner.max_tokens
        self.price, self.estimated, self.note = inner.price, inner.estimated, inner.note
        self._inner = inner

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # an attribute of the inner one
        return self._inner.tokenizer

    def estimate(self, texts: Sequence[str], *, truncate: bool = False) -> Usage:
        return self._inner.estimate(texts, truncate=truncate)

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> NoReturn:
        raise UnsupportedError(f"a plan does not ask {self.name}")

    def embed_query(self, text: str, *, truncate: bool = False) -> NoReturn:
        raise UnsupportedError(f"a plan does not ask {self.name}")


class Sentences(Embedder):
    """Stands in for a model that a chunker asks where to cut: keeps the texts, and answers at random.

    Such a chunker cuts at a share of the gaps between sentences; which ones they are changes the number of chunks
    little, and their tokens hardly.
    """

    dimension = 8

    def __init__(self, inner: Embedder) -> None:
        self.name, self.fingerprint, self.max_tokens = inner.name, inner.fingerprint, inner.max_tokens
        self.tokenizer = inner.tokenizer
        self.texts: list[str] = []
        self._random = np.random.default_rng(0)

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        self.texts += texts
        rows = self._random.standard_normal((len(texts), self.dimension), np.float32)
        vectors: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        row: Float32 = self.embed_documents([text])[0]
        return row


class Planner:
    """The methods of Writer and Ledger that adding calls; those that write do nothing."""

    def __init__(
        self,
        writer: Writer,
        ledger: Ledger,
        embedder: Embedder,
        chunker: Chunker,
        fields: Mapping[str, FieldKind],
        late: LateInteraction | None = None,
        sentences: Sentences | None = None,
        budget: float | None = None,
        skip_duplicates: float | None = None,
    ) -> None:
        """sentences: what the chunker asks, if it asks a model. Raises UnsupportedError for one that asks another."""
        if chunker.embeds and sentences is None:
            raise UnsupportedError(
                f"the chunker {chunker.settings.get('name', 'given')!r} asks a model where to cut: a plan would cost "
                "what it should foretell; give a chunker by its name"
            )
        if budget is not None:
            Budget(embedder, budget)  # refuses what the run would refuse
        self.plan = Plan(
            estimated=embedder.estimated,
            price=embedder.price,
            sentences=None if sentences is None else 0,
            budget=budget,
        )
        if embedder.unprobed:
            self.plan.unknown.append(
                f"the dimension of {embedder.name}, which the first run asks it for, with one word; and so whether the "
                "provider can be reached"
            )
        self._writer = writer
        self._ledger = ledger
        self._embedder = embedder
        self._chunker = chunker
        self._fields = fields
        self._late = late
        self._sentences = sentences
        self._threshold = skip_duplicates
        self._duplicates: Duplicates | None = None
        self._given: dict[str, str] = {}  # hash by id, of the documents so far
        self._seen: set[bytes] = set()  # equal texts are embedded once
        self._sample: list[str] = []

    def add(
        self,
        documents: Iterable[Tagged],
        *,
        truncate: bool = False,
        pool: bool = False,
        progress: Callable[[Any], None] | None = None,
        run: int | None = None,
    ) -> Report:
        check_long(truncate, pool)
        salt = self._writer.salt(pool)
        for window in windows(documents):
            self._window(window, salt, truncate, truncate or pool)
        plan = self.plan
        before = self._ledger.usage().get(self._embedder.name) or {"tokens": 0, "seconds": 0}
        free = not self._embedder.remote and self._embedder.price == 0 and self._sample
        if not plan.usage.tokens:
            plan.seconds = 0.0
        elif before["tokens"] and before["seconds"] and not (free and before["tokens"] < _ENOUGH):
            plan.seconds = plan.usage.tokens / (before["tokens"] / before["seconds"])
        elif free:
            plan.seconds = plan.usage.tokens * self._seconds_a_token()
        if self._late is not None and self._sample and plan.seconds is not None:
            plan.seconds += plan.chunks * _seconds_each(self._late.token_vectors, self._sample)
        if plan.budget is not None:
            inexact = plan.estimated or plan.sentences is not None
            plan.over = plan.usage.dollars * (MARGIN if inexact else 1) > plan.budget
        return Report()

    def _seconds_a_token(self) -> float:
        """Measured on some of the texts: a model that costs nothing can be asked."""
        each = _seconds_each(lambda texts: self._embedder.embed_documents(texts, truncate=True), self._sample)
        tokens = sum(token_counts(self._embedder.tokenizer, self._sample))
        return each * len(self._sample) / max(tokens, 1)

    def _window(self, window: Sequence[Tagged], salt: str, truncate: bool, cut: bool) -> None:
        """cut: what is over the model's limit is no failure."""
        plan = self.plan
        checked: list[tuple[Document, Tagged]] = []
        for tagged in window:
            try:
                if isinstance(tagged.document, Failure):
                    raise InvalidDocument(tagged.document.reason)
                document = check_document(tagged.document)
                check_fields(self._fields, document.metadata, "metadata")
                checked.append((document, tagged))
            except InvalidInput as error:
                plan.failed.append(Failure(str(tagged.document.id), str(error)))
        known = self._ledger.lookup([document.id for document, _ in checked])
        asked: list[str] = []
        for document, tagged in checked:
            entry, digest = known.get(document.id), content_hash(document, salt)
            if entry is not None and taken(entry.origin, tagged.origin):
                plan.failed.append(Failure(document.id, why_taken(entry.origin, tagged.origin)))
                continue
            if digest == self._given.get(document.id, entry.hash if entry else None):
                plan.unchanged += 1
                continue
            self._given[document.id] = digest
            chunks = self._chunker.chunk_document(document)
            if self._threshold is not None:
                if self._duplicates is None:
                    self._duplicates = Duplicates(self._threshold)
                    self._duplicates.know(self._writer.records())
                chunks, left_out = self._duplicates.without(document.id, chunks)
                plan.duplicates += len(left_out)
            texts = [*(chunk.embedded for chunk in chunks), *embedded(self._writer.vectors, document).values()]
            if not cut and (reason := self._too_long(texts, len(chunks))):
                plan.failed.append(Failure(document.id, reason))
                continue
            plan.documents += 1
            plan.chunks += len(chunks)
            asked += texts
        self._count(asked, truncate)
        if self._sentences is not None:
            sentences, self._sentences.texts = self._sentences.texts, []
            plan.sentences = (plan.sentences or 0) + len(sentences)
            plan.usage += self._embedder.estimate(sentences, truncate=truncate)

    def _too_long(self, texts: list[str], chunks: int) -> str:
        """Why the model will refuse a document, the first of whose texts are its chunks; nothing if it will not.

        Prefixes that the model puts before texts are not counted, and where tokens are estimated nothing is told.
        """
        limit = self._embedder.max_tokens
        if self._embedder.estimated:
            return ""
        size = self._chunker.settings.get("size")
        first = chunks if isinstance(size, int) and size + _SPECIAL <= limit else 0  # those keep within it
        for tokens in token_counts(self._embedder.tokenizer, texts[first:]):
            if tokens > limit:
                return (
                    f"a text of it has {tokens} tokens, and {self._embedder.name} takes {limit}; cut it smaller "
                    "(--chunker), or add it with --truncate or --pool"
                )
        return ""

    def _count(self, texts: list[str], truncate: bool) -> None:
        keys = dict(zip(map(text_key, texts), texts, strict=True))
        new = [text for key, text in keys.items() if key not in self._seen]
        self._seen |= keys.keys()
        self._sample = self._sample or new[:_SAMPLE]
        if new:
            self.plan.usage += self._embedder.estimate(new, truncate=truncate)

    # --- what asks the ledger -----------------------------------------------------------------------

    def has_origin(self, origin: str) -> int:
        return self._ledger.has_origin(origin)

    def settings(self) -> dict[str, Any]:
        return self._ledger.settings()

    def unseen(self, origin: str, run: int) -> list[str]:
        return []

    def next_run(self) -> int:
        return 0

    # --- what would write ---------------------------------------------------------------------------

    def remove(self, ids: Iterable[str]) -> int:
        return 0

    def set(self, values: Mapping[str, Any]) -> None:
        pass

    def clear_failures(self, origin: str | None) -> None:
        pass

    def saw(self, ids: Sequence[str], run: int) -> None:
        pass

    def saw_source(self, origin: str, source: str, run: int) -> None:
        pass


def _seconds_each(embed: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    embed(texts[:1])  # loads the model
    started = time.perf_counter()
    embed(texts)
    return (time.perf_counter() - started) / len(texts)
