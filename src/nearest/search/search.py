"""Dense, lexical and hybrid search over a store, showing only what the ledger has committed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from nearest import filters
from nearest.contract import (
    MAX_K,
    TOKENS,
    Dense,
    Embedder,
    Float32,
    Fused,
    FusionMethod,
    Hit,
    LateInteraction,
    Query,
    Store,
    Text,
    part_name,
)
from nearest.errors import CollectionLocked, InvalidQuery
from nearest.filters import Filter
from nearest.ledger import Visibility
from nearest.search import weighted
from nearest.search.feedback import Examples
from nearest.search.hits import Hits
from nearest.search.refine import Refined, Refinement, refine

Mode = Literal["dense", "lexical", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
FUSIONS: tuple[FusionMethod, ...] = get_args(FusionMethod)
Expand = Callable[[str], Sequence[str]]
"""A query to other wordings of it, none or several."""
_CONDITIONS = 256  # kept
_TOGETHER = 256  # queries of one call to the store, whose candidates are all in memory
_WORTH = 32  # queries that are worth a call while others are being embedded
_ATTEMPTS = 3
_PATIENCE = 100  # the same, where another process writes
_PLAIN = Refinement()
_NONE: frozenset[str] = frozenset()


class Searcher:
    """Searches one collection. Hits are chunks; several of one document may be among them."""

    def __init__(
        self,
        store: Store,
        visibility: Visibility,
        embedder: Callable[[], Embedder],
        late: Callable[[], LateInteraction] | None = None,
    ) -> None:
        """late: the model of the token vectors, where the store's records have some."""
        self._store = store
        self._visibility = visibility
        self._embedder = embedder
        self._conditions: dict[str, Filter | None] = {}
        self._late = late

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
        refinement: Refinement = _PLAIN,
        examples: Examples | None = None,
        expand: Expand | None = None,
        weights: Mapping[str, float] | None = None,
        alpha: float | None = None,
    ) -> list[Hits]:
        """The hits of each text, in their order. vectors: given instead of embedding the texts.

        weights: of the store's vectors by name, see `weighted`; only `dense` without them.

        alpha: the share of the vectors in a hybrid ranking, 0 to 1, the rest being that of the words; scores are then
        `normalized` unless another method than the adaptive one was asked for.

        examples: move every query's vector, and may stand alone. expand: its wordings are searched along with
        each text, and count together as much as the text itself.
        """
        if mode not in MODES:
            raise InvalidQuery(f"mode must be {', '.join(MODES)}, got {mode!r}")
        for i, text in enumerate(texts):
            if text is None:
                if (vectors is None and examples is None) or mode == "lexical":
                    raise InvalidQuery("a query needs a text" + (", or a vector" if mode != "lexical" else ""))
                if refinement.rerank is not None or expand is not None:
                    raise InvalidQuery("rerank and expand need the text of the query")
            elif not isinstance(text, str) or not text.strip():
                raise InvalidQuery(f"query {i}: the text is empty" if len(texts) > 1 else "the query text is empty")
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_K:
            raise InvalidQuery(f"k must be an integer from 1 to {MAX_K}, got {k!r}")
        if expand is not None and not callable(expand):
            raise InvalidQuery(f"expand must be a function from a query to other wordings of it, got {expand!r}")
        if fusion not in FUSIONS:
            raise InvalidQuery(f"fusion must be {', '.join(FUSIONS)}, got {fusion!r}")
        if not isinstance(candidates, int) or isinstance(candidates, bool) or not 1 <= candidates <= MAX_K:
            raise InvalidQuery(f"candidates must be an integer from 1 to {MAX_K}, got {candidates!r}")
        if examples is not None and mode == "lexical":
            raise InvalidQuery("examples are compared by their vectors; mode must be dense or hybrid")
        if weights is not None and mode == "lexical":
            raise InvalidQuery("weights are about vectors; mode must be dense or hybrid")
        if alpha is not None:
            if mode != "hybrid":
                raise InvalidQuery("alpha weighs vectors against words; mode must be hybrid")
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 <= alpha <= 1:
                raise InvalidQuery(f"alpha must be from 0 (words alone) to 1 (vectors alone), got {alpha!r}")
            fusion = "normalized" if fusion == "adaptive" else fusion
        shares = None if weights is None else weighted.shares(weights, self._store.schema)
        plain = refinement.nothing
        if not plain:
            refinement.check()
        condition = self._condition(where)
        if not texts:
            return []
        wordings = [[text, *(_wordings(text, expand) if expand and text else ())] for text in texts]
        depth = k if plain else refinement.depth(k, candidates)
        with_vectors = not plain and refinement.vectors
        excluded = _NONE if examples is None else examples.records
        told: dict[int, Hits] = {}
        started = time.perf_counter()
        for some, embedded in self._vectors(wordings, mode, vectors, examples):
            tokens = self._tokens([wordings[i] for i in some]) if shares and TOKENS in shares else [None] * len(some)
            queries = [
                Query(_find(wordings[i], rows, mode, fusion, candidates, shares, own, alpha), depth, condition,
                      ef=ef, explain=explain, with_vectors=with_vectors)
                for i, rows, own in zip(some, embedded, tokens, strict=True)
            ]  # fmt: skip
            asked = time.perf_counter()
            answers = self._visible(queries, excluded)
            found = time.perf_counter()
            for i, query, hits in zip(some, queries, answers, strict=True):
                seconds = {"embed": asked - started, "retrieve": found - asked}
                done = None if plain else self._refined(refinement, texts[i], query, hits, k, excluded, seconds)
                facts: dict[str, Any] | None = None
                if explain:
                    plan = self._store.plan(query)
                    plan = weighted.plan(plan) if shares else plan
                    facts = {"mode": mode, **plan, **(done.facts if done else {}), "seconds": seconds}
                extra = done.told if done else {}
                single = not isinstance(query.find, Fused)
                shown = [
                    _present(rank, hit, mode, explain, single, extra.get(hit.id))
                    for rank, hit in enumerate(done.hits if done else hits, 1)
                ]
                told[i] = Hits(shown, facts, done.after if done else None, skipped=done.skipped if done else None)
            started = time.perf_counter()
        return [told[i] for i in range(len(texts))]

    def _condition(self, where: Mapping[str, Any] | Filter | None) -> Filter | None:
        """As the store knows it. One that was asked before is the same tree, so that the store knows it again."""
        if not isinstance(where, dict):
            return filters.under(filters.parse(where), "metadata")
        said = repr(where)  # tells 1 from True
        known = self._conditions.get(said)
        if known is None:
            known = filters.under(filters.parse(where), "metadata")
            if len(self._conditions) >= _CONDITIONS:
                self._conditions.clear()
            self._conditions[said] = known
        return known

    def _vectors(
        self,
        wordings: Sequence[Sequence[str | None]],
        mode: Mode,
        vectors: Sequence[ArrayLike] | None,
        examples: Examples | None,
    ) -> Iterator[tuple[list[int], list[list[ArrayLike | None]]]]:
        """Some of the queries, by their index, and a vector for each wording of each; then others, until all came.

        None where no vector is needed, or none is given. While some are searched for, others may be embedded.
        """
        rows: list[list[ArrayLike | None]] = [[None] * len(some) for some in wordings]
        asked: list[tuple[int, int, str]] = []
        missing = [0] * len(wordings)
        if mode != "lexical":
            first = 0 if vectors is None else 1
            for i, some in enumerate(wordings):
                if vectors is not None:
                    rows[i][0] = vectors[i]
                wanted = [(i, j, text) for j, text in enumerate(some) if text is not None and j >= first]
                missing[i] = len(wanted)
                asked += wanted
        ready = [i for i, count in enumerate(missing) if not count]

        def moved(some: list[int]) -> tuple[list[int], list[list[ArrayLike | None]]]:
            if examples is None or mode == "lexical":
                return some, [rows[i] for i in some]
            return some, [[examples.move(row) for row in rows[i]] for i in some]

        for made, part in self._embedded([text for _, _, text in asked]):
            for at, row in zip(made, part, strict=True):
                i, j, _ = asked[at]
                rows[i][j] = row
                missing[i] -= 1
                if not missing[i]:
                    ready.append(i)
            while len(ready) >= _WORTH:
                yield moved(ready[:_TOGETHER])
                ready = ready[_TOGETHER:]
        for start in range(0, len(ready), _TOGETHER):
            yield moved(ready[start : start + _TOGETHER])

    def _embedded(self, texts: Sequence[str]) -> Iterable[tuple[Sequence[int], Iterable[ArrayLike]]]:
        """A question longer than the model's limit is answered by its beginning."""
        if not texts:
            return ()
        embedder = self._embedder()
        if len(texts) == 1:
            return [((0,), (embedder.embed_query(texts[0], truncate=True),))]
        return embedder.stream_queries(texts, truncate=True)

    def _tokens(self, wordings: Sequence[Sequence[str | None]]) -> list[list[Float32]]:
        """The token vectors of each wording of each query."""
        texts = [text for some in wordings for text in some if text is not None]
        if self._late is None or len(texts) < sum(map(len, wordings)):
            raise InvalidQuery(f"weights.{TOKENS}: token vectors are compared with those of a text; give a query")
        rows = iter(self._late().query_vectors(texts))
        return [[next(rows) for _ in some] for some in wordings]

    def _refined(
        self,
        how: Refinement,
        text: str | None,
        query: Query,
        hits: list[Hit],
        k: int,
        excluded: frozenset[str],
        seconds: dict[str, float],
    ) -> Refined:
        """Refined, from a deeper ranking where the groups of this one do not fill the answer."""
        key = "" if how.after is None else _key(query, how)
        while True:
            done = refine(how, text, hits, k, query.k, key)
            for stage, spent in done.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
            if how.group_by is None or not done.more:
                return done
            started = time.perf_counter()
            query = replace(query, k=min(4 * query.k, MAX_K))
            hits = self._visible([query], excluded)[0]
            seconds["retrieve"] += time.perf_counter() - started

    def _visible(self, queries: list[Query], excluded: frozenset[str]) -> list[list[Hit]]:
        """Hits of committed versions only: the old one or the new one of a document that is being updated."""
        mine = self._visibility.watch is None
        for _ in range(_ATTEMPTS if mine else _PATIENCE):
            self._visibility.refresh()
            state = self._visibility.state
            answers = self._once(queries, state.hidden | excluded if excluded else state.hidden)
            self._visibility.refresh()
            # New records may come, and old ones go, only while they are hidden and after the epoch has moved.
            if self._visibility.state == state:
                return answers
        if not mine:  # the mutex stops no other process
            raise CollectionLocked("another process changed the collection in the midst of every search; try again")
        with self._visibility.mutex:
            return self._once(queries, self._visibility.hidden | excluded)

    def _once(self, queries: list[Query], hidden: frozenset[str]) -> list[list[Hit]]:
        if not hidden:
            return weighted.search_many(self._store, queries)
        wider = [_widen(query, len(hidden)) for query in queries]
        answers = weighted.search_many(self._store, wider)
        return [
            [hit for hit in hits if hit.id not in hidden][: query.k]
            for query, hits in zip(queries, answers, strict=True)
        ]


def _wordings(text: str, expand: Expand) -> list[str]:
    """The other wordings, each once."""
    said: object = expand(text)
    others: list[Any] = list(said) if isinstance(said, Iterable) and not isinstance(said, str) else [None]
    if not all(isinstance(other, str) and other.strip() for other in others):
        raise InvalidQuery(f"expand must return a list of texts, got {said!r}")
    return [other for other in dict.fromkeys(others) if other != text]


def _find(
    texts: Sequence[str | None],
    vectors: Sequence[ArrayLike | None],
    mode: Mode,
    fusion: FusionMethod,
    candidates: int,
    shares: Mapping[str, float] | None,
    tokens: Sequence[Float32] | None,
    alpha: float | None,
) -> Dense | Text | Fused:
    """For the wordings of one query, the user's own first."""
    parts: list[Dense | Text] = []
    weights: list[float] = []
    for i, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        words = [Text(text)] if text is not None and mode != "dense" else []
        weight = 1.0 if i == 0 else 1.0 / (len(texts) - 1)
        weights += [weight if alpha is None else weight * alpha] * (vector is not None)
        weights += [weight if alpha is None else weight * (1 - alpha)] * len(words)
        if shares is not None and vector is not None:
            parts += [Dense(tokens[i] if name == TOKENS and tokens else vector, name) for name in shares]
        elif vector is not None:
            parts.append(Dense(vector))
        parts += words
    told = tuple(weights) if len(texts) > 1 or alpha is not None else None
    if shares is not None:
        return weighted.Weighted(tuple(parts), fusion, told, candidates=candidates, shares=tuple(shares.values()))
    return parts[0] if len(parts) == 1 else Fused(tuple(parts), fusion, told, candidates=candidates)


def _key(query: Query, how: Refinement) -> str:
    """Equal for the pages of one search, and different for another's."""
    find = query.find
    parts = find.parts if isinstance(find, Fused) else (find,)
    said = hashlib.sha256()
    for part in parts:
        said.update(np.asarray(part.vector, np.float32).tobytes() if isinstance(part, Dense) else repr(part).encode())
    settings = (
        (find.method, find.weights, find.candidates) if isinstance(find, Fused) else (),
        ([part_name(part) for part in parts], find.shares) if isinstance(find, weighted.Weighted) else (),
        query.k, query.where,
        how.rerank and how.rerank.name, how.rerank_candidates, how.min_score, how.group_by, how.diversity,
    )  # fmt: skip
    said.update(repr(settings).encode())
    return said.hexdigest()[:16]


def _widen(query: Query, by: int) -> Query:
    find = query.find
    if isinstance(find, Fused):
        find = replace(find, candidates=min(find.candidates + by, MAX_K))
    return replace(query, find=find, k=min(query.k + by, MAX_K))


def _present(rank: int, hit: Hit, mode: Mode, explain: bool, single: bool, extra: Mapping[str, Any] | None) -> Hit:
    """A hit under its chunk's own id, `document#ordinal`, and how it came to its place.

    single: the query had one part. extra: what the refinement tells of the hit.
    """
    payload = hit.payload
    told: dict[str, Any] | None = None
    if explain:
        told = {"mode": mode}
        if hit.explain:
            told |= hit.explain
        if single and mode != "hybrid":
            told[mode] = (extra and extra.get("first")) or {"rank": rank, "score": hit.score}
        if extra:
            told |= extra
    return Hit(f"{payload['document_id']}#{payload['chunk']}", {}, payload, hit.score, told)
