"""What adding documents would do and cost, before anything is written or any request made.

A `Planner` takes the places of the writer and the ledger, so that whatever reads documents for `add` is the
same: files, URLs, queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nearest.contract import (
    Chunker,
    Document,
    Embedder,
    Failure,
    FieldKind,
    LateInteraction,
    Usage,
    check_document,
    check_fields,
)
from nearest.errors import InvalidDocument, InvalidInput, UnsupportedError
from nearest.ingest.write import Report, Tagged, Writer, content_hash, embedded, text_key, windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nearest.ledger import Ledger


_SAMPLE = 32  # texts


@dataclass(slots=True)
class Plan:
    """documents: to be embedded; unchanged, failed, chunks: as in Report. usage: of the model, with what its cache
    has. estimated: the tokens are, since the model's own tokenizer is not at hand. price: dollars a million
    tokens; None where it is unknown, and then so are the dollars. seconds: of embedding, at the rate of earlier
    runs, or of some texts where the model costs nothing, and of token vectors; None where neither tells.
    """

    documents: int = 0
    unchanged: int = 0
    failed: int = 0
    chunks: int = 0
    usage: Usage = field(default_factory=Usage)
    estimated: bool = False
    price: float | None = None
    seconds: float | None = None


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
    ) -> None:
        if chunker.embeds:
            raise UnsupportedError(
                f"the chunker {chunker.settings.get('name', 'given')!r} embeds sentences to find its cuts, so a plan "
                "would cost what it should foretell; expect about twice the tokens of a plan with another chunker"
            )
        self.plan = Plan(estimated=embedder.estimated, price=embedder.price)
        self._writer = writer
        self._ledger = ledger
        self._embedder = embedder
        self._chunker = chunker
        self._fields = fields
        self._late = late
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
        salt = self._writer.salt(pool)
        for window in windows(documents):
            self._window(window, salt, truncate)
        plan = self.plan
        before = self._ledger.usage().get(self._embedder.name)
        if before and before["tokens"] and before["seconds"]:
            plan.seconds = plan.usage.tokens / (before["tokens"] / before["seconds"])
        elif self._embedder.price == 0 and self._sample:
            plan.seconds = plan.usage.tokens * self._seconds_a_token()
        if self._late is not None and self._sample and plan.seconds is not None:
            plan.seconds += plan.chunks * _seconds_each(self._late.token_vectors, self._sample)
        return Report()

    def _seconds_a_token(self) -> float:
        """Measured on some of the texts: a model that costs nothing can be asked."""
        each = _seconds_each(lambda texts: self._embedder.embed_documents(texts, truncate=True), self._sample)
        tokens = sum(len(e) for e in self._embedder.tokenizer.encode_batch_fast(self._sample))
        return each * len(self._sample) / max(tokens, 1)

    def _window(self, window: Sequence[Tagged], salt: str, truncate: bool) -> None:
        plan = self.plan
        checked: list[Document] = []
        for tagged in window:
            try:
                if isinstance(tagged.document, Failure):
                    raise InvalidDocument(tagged.document.reason)
                document = check_document(tagged.document)
                check_fields(self._fields, document.metadata, "metadata")
                checked.append(document)
            except InvalidInput:
                plan.failed += 1
        known = self._ledger.lookup([document.id for document in checked])
        texts: list[str] = []
        for document in checked:
            if document.id in known and known[document.id].hash == content_hash(document, salt):
                plan.unchanged += 1
                continue
            chunks = [chunk.embedded for chunk in self._chunker.chunk_document(document)]
            plan.documents += 1
            plan.chunks += len(chunks)
            asked = [*chunks, *embedded(self._writer.vectors, document).values()]
            keys = dict(zip(map(text_key, asked), asked, strict=True))
            texts += [text for key, text in keys.items() if key not in self._seen]
            self._seen |= keys.keys()
        self._sample = self._sample or texts[:_SAMPLE]
        if texts:
            plan.usage += self._embedder.estimate(texts, truncate=truncate)

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

    def saw_source(self, origin: str, source: str, run: int) -> None:
        pass


def _seconds_each(embed: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    embed(texts[:1])  # loads the model
    started = time.perf_counter()
    embed(texts)
    return (time.perf_counter() - started) / len(texts)
