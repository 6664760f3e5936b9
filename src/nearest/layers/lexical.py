"""The lexical fallback: BM25 for a store that has none, by a second store beside it, the companion.

The companion holds each record's payload without its vectors (`companion_schema`). The inner store is what
counts: records, counts, scans and conditions are its own, and of what the companion finds by words only what
the inner store holds, and as it holds it, is returned.

Order at a crash. The companion always knows at least what the inner store has: an upsert goes to the
companion first, a delete to the inner store first. What is left over in between is a text without a record, which
no search returns; never a record that a search by words misses. Repeating the write that was cut off, as the
write path does, makes the two equal again, and so does `verify(repair=True)`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nearest import filters
from nearest.contract import (
    MAX_K,
    Feature,
    Fused,
    Hit,
    Query,
    Record,
    Schema,
    Store,
    Text,
    canonical_json,
    fused_search,
)
from nearest.errors import InvalidInput
from nearest.filters import Filter
from nearest.layers._wrapper import Layer
from nearest.layers.residual import Residual


def companion_schema(schema: Schema) -> Schema:
    """What a companion is made with, for a collection of this schema; the inner store gets `inner_schema`."""
    return Schema(text=schema.text, language=schema.language, fields=schema.fields)


def inner_schema(schema: Schema) -> Schema:
    return replace(schema, text=None)


@dataclass(frozen=True, slots=True)
class Differences:
    """Ids of records. missing: without a text. stale: with that of another version. extra: texts without a record."""

    missing: list[str]
    stale: list[str]
    extra: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.stale or self.extra)


class Lexical(Layer):
    """A store with text search. Both stores are completed by `Residual` here, each for the conditions it lacks.

    A search by words costs one `get` of the inner store, for those hits that no other part of the query found.
    Writes go one at a time, so that two of the same record cannot leave the stores with one each. Closing
    it closes both. Raises InvalidInput if the inner schema has a text field, or the companion's has none.
    """

    def __init__(self, inner: Store, companion: Store) -> None:
        super().__init__(Residual(inner))
        if inner.schema.text is not None or companion.schema.text is None:
            raise InvalidInput("Lexical needs an inner store without a text field and a companion with one")
        self._companion = Residual(companion)
        self.schema = replace(inner.schema, text=companion.schema.text, language=companion.schema.language)
        has, also = inner.capabilities, companion.capabilities
        gained: frozenset[Feature] = frozenset({"text"})
        lost: frozenset[Feature] = frozenset({"durable"}) if "durable" not in also else frozenset()
        self.capabilities = replace(  # type: ignore[misc]  # see Layer
            has,
            features=has.features - lost | gained,
            read_your_writes=has.read_your_writes and also.read_your_writes,
            max_batch=min(has.max_batch, also.max_batch),
        )
        self._writing = threading.Lock()

    # --- writing: see the module's docstring for the order ---

    def _check(self, record: Record) -> None:
        self._companion._check(_text_of(record))
        self.inner._check(record)

    def _upsert(self, records: list[Record]) -> None:
        with self._writing:
            self._companion._upsert([_text_of(record) for record in records])
            self.inner._upsert(records)

    def _delete(self, ids: list[str]) -> None:
        with self._writing:
            self.inner._delete(ids)
            self._companion._delete(ids)

    def _delete_where(self, where: Filter) -> None:
        with self._writing:
            self.inner._delete_where(where)
            self._companion._delete_where(where)

    def flush(self) -> None:
        self._companion.flush()
        self.inner.flush()

    def wait(self) -> None:
        self._companion.wait()
        self.inner.wait()

    def optimize(self) -> None:
        self._companion.optimize()
        self.inner.optimize()

    def stats(self) -> dict[str, Any]:
        return {**self.inner.stats(), "lexical": self._companion.stats()}

    def close(self) -> None:
        try:
            self.inner.close()
        finally:
            self._companion.close()

    # --- searching ---

    def plan(self, query: Query) -> dict[str, list[str]]:
        plan = self.inner.plan(query)
        above = [name for name in ("lexical", "fusion") if name in plan["native"]]
        if "lexical" not in above:
            return plan
        native = [name for name in plan["native"] if name not in above]
        return {"native": native, "completed": list(dict.fromkeys([*above, *plan["completed"]]))}

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in queries]
        texts = [i for i, query in enumerate(queries) if isinstance(query.find, Text)]
        fused = [i for i, query in enumerate(queries) if isinstance(query.find, Fused) and _has_text(query.find)]
        native = sorted({*range(len(queries))} - {*texts, *fused})
        if native:
            for i, hits in zip(native, self.inner._search_many([queries[i] for i in native]), strict=True):
                answers[i] = hits
        if fused:
            # Comes back here, with all parts of all queries as one batch.
            for i, hits in zip(fused, fused_search(self, [queries[i] for i in fused]), strict=True):
                answers[i] = hits
        if texts:
            wanted = [queries[i] for i in texts]
            with_vectors = any(query.with_vectors for query in wanted)
            seen = {
                hit.id: hit
                for i in native
                if queries[i].with_payload and queries[i].with_vectors >= with_vectors
                for hit in answers[i]
            }
            held = _Held(self.inner, with_vectors, seen)
            for i, hits in zip(texts, self._by_words(wanted, held), strict=True):
                answers[i] = hits
        return answers

    def _by_words(self, queries: list[Query], held: _Held) -> list[list[Hit]]:
        """The companion's hits as the inner store holds them; more are asked for in place of those it does not."""
        answers: list[list[Hit]] = [[] for _ in queries]
        asked = dict(enumerate(queries))
        while asked:
            plain = [replace(query, with_payload=False, with_vectors=False, exact=False) for query in asked.values()]
            found = dict(zip(asked, self._companion._search_many(plain), strict=True))
            records = held.get(hit.id for hits in found.values() for hit in hits)
            deeper: dict[int, Query] = {}
            for i, hits in found.items():
                query = queries[i]
                kept = [
                    replace(
                        hit,
                        vectors=record.vectors if query.with_vectors else {},
                        payload=record.payload if query.with_payload else {},
                    )
                    for hit in hits
                    if (record := records.get(hit.id)) is not None and filters.evaluate(query.where, record.payload)
                ]
                answers[i] = kept[: query.k]
                if len(kept) < query.k and len(hits) == asked[i].k < MAX_K:
                    deeper[i] = replace(query, k=min(2 * asked[i].k, MAX_K))
            asked = deeper
        return answers

    # --- checking ---

    def verify(self, *, repair: bool = False) -> Differences:
        """Compares both stores, and makes the companion equal to the inner store if asked; writes wait meanwhile."""
        missing: list[str] = []
        stale: list[str] = []
        extra: list[str] = []
        with self._writing:
            for records in _pages(self.inner):
                texts = {text.id: text for text in self._companion.get(record.id for record in records)}
                wrong = []
                for record in records:
                    text = texts.get(record.id)
                    if text is None or canonical_json(text.payload) != canonical_json(record.payload):
                        (missing if text is None else stale).append(record.id)
                        wrong.append(_text_of(record))
                if repair:
                    self._companion.upsert(wrong)
            for records in _pages(self._companion):
                there = {record.id for record in self.inner.get(record.id for record in records)}
                extra += [record.id for record in records if record.id not in there]
            if repair:
                self._companion.delete(extra)
        return Differences(missing, stale, extra)


class _Held:
    """Records of the inner store, each fetched once a search. seen: those that it has just found."""

    def __init__(self, inner: Store, with_vectors: bool, seen: dict[str, Hit]) -> None:
        self._inner = inner
        self._with_vectors = with_vectors
        self._records: dict[str, Record | None] = dict(seen)

    def get(self, ids: Iterable[str]) -> dict[str, Record | None]:
        unknown = [i for i in dict.fromkeys(ids) if i not in self._records]
        if unknown:
            self._records.update(dict.fromkeys(unknown))
            self._records.update((record.id, record) for record in self._inner._get(unknown, self._with_vectors))
        return self._records


def _has_text(find: Fused) -> bool:
    return any(isinstance(part, Text) for part in find.parts)


def _text_of(record: Record) -> Record:
    return Record(record.id, {}, record.payload)


def _pages(store: Store) -> Iterator[list[Record]]:
    cursor: str | None = None
    while True:
        page = store.scan(cursor)
        yield page.records
        cursor = page.cursor
        if cursor is None:
            return
