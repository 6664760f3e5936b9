"""Several vectors of a record as one ranking: by the weighted mean of their similarities to the query.

Each field is searched for its best `candidates`. What one of these searches found and another did not is compared by
its vector: a score never depends on which lists a record was in, only whether it is a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nearest import fusion
from nearest.contract import Float32, Fused, Hit, Query, Schema, Store, Text, part_name
from nearest.errors import InvalidQuery

NAME = "weighted"
"""Of the ranking, in `Hit.explain`."""
_FLATNESS = 0.5  # of similarities, see `contract.flatness`


@dataclass(frozen=True, slots=True)
class Weighted(Fused):
    """parts: for each wording of the query a Dense a field, then a Text where words are searched as well.

    shares: of the fields, in the order of the parts, adding up to 1. weights: of the rankings, of which each wording
    has one by its fields and one by its words.
    """

    shares: tuple[float, ...] = ()

    def wordings(self) -> Iterator[slice]:
        """Where each wording's parts are."""
        step = len(self.shares) + isinstance(self.parts[-1], Text)
        return (slice(at, at + step) for at in range(0, len(self.parts), step))


def shares(weights: Mapping[str, float], schema: Schema) -> dict[str, float]:
    """The weights as parts of 1, without those of 0; raises InvalidQuery."""
    if not isinstance(weights, Mapping):
        raise InvalidQuery(f'weights are by the name of a vector, such as {{"dense": 1.0}}, got {weights!r}')
    for name, weight in weights.items():
        if name not in schema.vectors:
            raise InvalidQuery(f"weights: no vector named {name!r}; the collection has {', '.join(schema.vectors)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InvalidQuery(f"weights.{name} must be a number from 0, got {weight!r}")
    total = sum(weights.values())
    if not total > 0:
        raise InvalidQuery("weights are all 0, or none; give one above 0")
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def search_many(store: Store, queries: Sequence[Query]) -> list[list[Hit]]:
    """`store.search_many`, for queries of which some are Weighted: one batch for all parts, one `get` for vectors."""
    if not any(isinstance(query.find, Weighted) for query in queries):
        return store.search_many(queries)
    singles: list[Query] = []
    for query in queries:
        if isinstance(query.find, Weighted):
            depth = max(query.find.candidates, query.k)
            singles += [replace(query, find=part, k=depth, explain=False) for part in query.find.parts]
        else:
            singles.append(query)
    answers = iter(store.search_many(singles))
    found = [[next(answers) for _ in _parts(query)] for query in queries]
    missing: set[str] = set()
    for query, lists in zip(queries, found, strict=True):
        if isinstance(query.find, Weighted):
            for at in query.find.wordings():
                listed = [{hit.id for hit in hits} for hits in lists[at][: len(query.find.shares)]]
                every = {item for items in listed for item in items}
                missing |= {item for items in listed for item in every - items}
    held = {record.id: record.vectors for record in store.get(missing, with_vectors=True)} if missing else {}
    return [
        _fused(query, query.find, lists, held) if isinstance(query.find, Weighted) else lists[0]
        for query, lists in zip(queries, found, strict=True)
    ]


def _parts(query: Query) -> Sequence[Any]:
    return query.find.parts if isinstance(query.find, Weighted) else (query.find,)


def plan(told: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """`Store.plan` of such a query: whatever the store can, the fusion is done here."""
    native = [name for name in told["native"] if name != "fusion"]
    return {"native": native, "completed": list(dict.fromkeys([*told["completed"], "fusion"]))}


def _fused(
    query: Query, find: Weighted, lists: Sequence[Sequence[Hit]], held: Mapping[str, Mapping[str, Any]]
) -> list[Hit]:
    depth, fields = max(find.candidates, query.k), len(find.shares)
    rankings: list[fusion.Ranking[str]] = []
    flatness: list[float] = []
    tables: list[tuple[str, Mapping[str, int], Mapping[str, float]]] = []  # ranks and scores by id
    for number, at in enumerate(find.wordings(), 1):
        parts, found = find.parts[at], lists[at]
        means, similar = _means(parts[:fields], found[:fields], find.shares, held)
        best = sorted(means.items(), key=lambda pair: (-pair[1], pair[0]))[:depth]
        words = [[(hit.id, hit.score) for hit in hits] for hits in found[fields:]]
        rankings += [best, *words]
        flatness += [_FLATNESS, *(1.0 for _ in words)]
        listed = [[(hit.id, hit.score) for hit in hits] for hits in found[:fields]]
        names, every = [*map(part_name, parts), NAME], [*listed, *words, best]
        for name, ranking, scores in zip(names, every, [*similar, *map(dict, words), means], strict=True):
            ranks = {item: rank for rank, (item, _) in enumerate(ranking, 1)}
            tables.append((f"{name}#{number}" if number > 1 else name, ranks, scores))
    if len(rankings) == 1:
        fused = dict(rankings[0])
    else:
        fused = fusion.scores(rankings, find.method, find.weights, find.rrf_k, flatness)
    hits = {hit.id: hit for some in lists for hit in some}
    ranked = sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[: query.k]
    return [
        replace(hits[item], score=score, explain=_told(item, tables) if query.explain else None)
        for item, score in ranked
    ]


def _told(item: str, tables: Sequence[tuple[str, Mapping[str, int], Mapping[str, float]]]) -> dict[str, Any]:
    """Without a rank where a search did not find it, and its vector was compared all the same."""
    return {
        name: {**({"rank": ranks[item]} if item in ranks else {}), "score": scores[item]}
        for name, ranks, scores in tables
        if item in scores
    }


def _means(
    parts: Sequence[Any], lists: Sequence[Sequence[Hit]], shares: Sequence[float], held: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The weighted mean of every hit of these searches, and its similarity by each field.

    held: the vectors of those that not all searches found; what is not among them was deleted meanwhile.
    """
    every = list(dict.fromkeys(hit.id for hits in lists for hit in hits))
    similar: list[dict[str, float]] = []
    for part, hits in zip(parts, lists, strict=True):
        query = np.asarray(part.vector, np.float32)
        tokens = len(query) if query.ndim == 2 else 1
        known = {hit.id: hit.score / tokens for hit in hits}
        others = [item for item in every if item not in known and item in held]
        known |= zip(others, _similarities(query, [held[item][part.using] for item in others]), strict=True)
        similar.append(known)
    rows = [(item, [known[item] for known in similar]) for item in every if all(item in known for known in similar)]
    means = {item: math.fsum(s * score for s, score in zip(shares, scores, strict=True)) for item, scores in rows}
    return means, similar


def _similarities(query: Float32, vectors: Sequence[Float32]) -> list[float]:
    """Cosines; of token vectors the mean, over the query's tokens, of the largest with one of the text's tokens."""
    if not vectors:
        return []
    query = query / np.linalg.norm(query, axis=-1, keepdims=True)
    if query.ndim == 1:
        return [float(score) for score in np.stack(vectors) @ query]
    return [float((query @ vector.T).max(axis=1).mean()) for vector in vectors]
