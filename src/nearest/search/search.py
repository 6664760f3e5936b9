"""Dense, lexical and hybrid search over a store, showing only what the ledger has committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from numpy.typing import ArrayLike

from nearest import filters
from nearest.contract import MAX_K, Dense, Embedder, Fused, FusionMethod, Hit, Query, Store, Text
from nearest.errors import InvalidQuery
from nearest.filters import Filter
from nearest.ledger import Visibility

Mode = Literal["dense", "lexical", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
FUSIONS: tuple[FusionMethod, ...] = get_args(FusionMethod)
_ATTEMPTS = 3


class Searcher:
    """Searches one collection. Hits are chunks; several of one document may be among them."""

    def __init__(self, store: Store, visibility: Visibility, embedder: Callable[[], Embedder]) -> None:
        self._store = store
        self._visibility = visibility
        self._embedder = embedder

    def search_many(
        self,
        texts: Sequence[str | None],
        *,
        k: int,
        where: Mapping[str, Any] | Filter | None,
        mode: Mode,
        fusion: FusionMethod,
        vectors: Sequence[ArrayLike] | None,
        candidates: int,
        ef: int | None,
        explain: bool,
    ) -> list[list[Hit]]:
        """One list of hits a text, in their order. vectors: given instead of embedding the texts."""
        if mode not in MODES:
            raise InvalidQuery(f"mode must be {', '.join(MODES)}, got {mode!r}")
        for i, text in enumerate(texts):
            if text is None:
                if vectors is None or mode == "lexical":
                    raise InvalidQuery("a query needs a text" + (", or a vector" if mode != "lexical" else ""))
            elif not isinstance(text, str) or not text.strip():
                raise InvalidQuery(f"query {i}: the text is empty" if len(texts) > 1 else "the query text is empty")
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_K:
            raise InvalidQuery(f"k must be an integer from 1 to {MAX_K}, got {k!r}")
        condition = filters.under(filters.parse(where), "metadata")
        if not texts:
            return []
        if vectors is None and mode != "lexical":
            asked = [text or "" for text in texts]
            # A question longer than the model's limit is answered by its beginning.
            embedder = self._embedder()
            vectors = (
                [embedder.embed_query(asked[0], truncate=True)]
                if len(asked) == 1
                else list(embedder.embed_queries(asked, truncate=True))
            )
        queries = [
            Query(_find(text, vectors[i] if vectors is not None else None, mode, fusion, candidates), k, condition,
                  ef=ef, explain=explain)
            for i, text in enumerate(texts)
        ]  # fmt: skip
        return [
            [_present(rank, hit, mode, explain) for rank, hit in enumerate(hits, 1)] for hits in self._visible(queries)
        ]

    def _visible(self, queries: list[Query]) -> list[list[Hit]]:
        """Hits of committed versions only: the old one or the new one of a document that is being updated."""
        for _ in range(_ATTEMPTS):
            self._visibility.refresh()
            epoch, hidden = self._visibility.epoch, self._visibility.hidden
            answers = self._once(queries, hidden)
            self._visibility.refresh()
            # New records may come, and old ones go, only while they are hidden and after the epoch has moved.
            if self._visibility.epoch == epoch and self._visibility.hidden is hidden:
                return answers
        with self._visibility.mutex:
            return self._once(queries, self._visibility.hidden)

    def _once(self, queries: list[Query], hidden: frozenset[str]) -> list[list[Hit]]:
        if not hidden:
            return self._store.search_many(queries)
        wider = [_widen(query, len(hidden)) for query in queries]
        answers = self._store.search_many(wider)
        return [
            [hit for hit in hits if hit.id not in hidden][: query.k]
            for query, hits in zip(queries, answers, strict=True)
        ]


def _find(
    text: str | None, vector: ArrayLike | None, mode: Mode, fusion: FusionMethod, candidates: int
) -> Dense | Text | Fused:
    if mode == "lexical" or vector is None:
        return Text(text or "")
    if mode == "dense" or text is None:
        return Dense(vector)
    return Fused((Dense(vector), Text(text)), fusion, candidates=candidates)


def _widen(query: Query, by: int) -> Query:
    find = query.find
    if isinstance(find, Fused):
        find = replace(find, candidates=min(find.candidates + by, MAX_K))
    return replace(query, find=find, k=min(query.k + by, MAX_K))


def _present(rank: int, hit: Hit, mode: Mode, explain: bool) -> Hit:
    """A hit under its chunk's own id, `document#ordinal`, and how it came to its place."""
    payload = hit.payload
    told: dict[str, Any] | None = None
    if explain:
        told = {"mode": mode, **(hit.explain or {})}
        if mode != "hybrid":
            told[mode] = {"rank": rank, "score": hit.score}
    return Hit(f"{payload['document_id']}#{payload['chunk']}", {}, payload, hit.score, told)
