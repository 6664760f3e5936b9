"""Residual filters: completes, exactly, the conditions that a store cannot run itself.

The store runs the tightest condition that loses no match (`filters.upper_bound`); what comes back is
evaluated here, and more is fetched until k hits are found or there are none left. Never a means of
tenant isolation: records outside the condition pass through this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nearest import filters
from nearest.contract import MAX_K, Fused, Hit, Page, Query, Record, Store, fused_search
from nearest.errors import UnsupportedError
from nearest.filters import Comparison, Filter
from nearest.layers._wrapper import Layer

_PAGE = 1000


class Residual(Layer):
    """A store on which every filter holds. `explain` of a completed hit says `"filter": "residual"`."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._bound = filters.Memo(lambda where: filters.upper_bound(where, inner.filter_support))
        self._comparisons = filters.Memo(self._split)

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return "exact"

    def check_filter(self, condition: Filter | None) -> None:
        return

    def plan(self, query: Query) -> dict[str, list[str]]:
        plan = self.inner.plan(query)
        every, lacking = ([], []) if query.where is None else self._comparisons(query.where)
        if not lacking:
            return plan
        # Fusion goes with it, see `_search_many`; of the condition the store runs the rest.
        above = {"fusion"} | ({"where"} if len(lacking) == len(every) else set())
        native = [name for name in plan["native"] if name not in above]
        fusion = ["fusion"] if "fusion" in plan["native"] else []
        told = [f"where {'.'.join(node.path)} {node.op}" for node in lacking]
        return {"native": native, "completed": [*plan["completed"], *fusion, *told]}

    def _split(self, where: Filter) -> tuple[list[Comparison], list[Comparison]]:
        """All comparisons, and those that are completed here."""
        every = list(filters.comparisons(where))
        return every, [node for node in every if self.inner.filter_support(node) != "exact"]

    def _delete_where(self, where: Filter) -> None:
        bound, exact = self._bound(where)
        if exact:
            self.inner._delete_where(where)
            return
        # Deleting while scanning could move the cursor, so the ids are gathered first.
        self._delete([record.id for record in self._matching(where, bound)])

    def _count(self, where: Filter | None) -> int:
        if where is None:
            return self.inner._count(None)
        bound, exact = self._bound(where)
        if exact:
            return self.inner._count(where)
        return sum(1 for _ in self._matching(where, bound))

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        if where is None:
            return self.inner._scan(cursor, limit, None, with_vectors)
        bound, exact = self._bound(where)
        found: list[Record] = []
        while True:
            page = self.inner._scan(cursor, limit - len(found), bound, with_vectors)
            found += page.records if exact else [r for r in page.records if filters.evaluate(where, r.payload)]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return Page(found, cursor)

    def _matching(self, where: Filter, bound: Filter) -> Iterator[Record]:
        cursor: str | None = None
        while True:
            page = self.inner._scan(cursor, _PAGE, bound, False)
            yield from (record for record in page.records if filters.evaluate(where, record.payload))
            cursor = page.cursor
            if cursor is None:
                return

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in queries]
        native: list[tuple[int, Query]] = []
        for i, query in enumerate(queries):
            bound, exact = (None, True)
            if query.where is not None:
                bound, exact = self._bound(query.where)
            if exact:
                native.append((i, query))
            elif isinstance(query.find, Fused):
                # Ranks and score ranges must be those of the matching records, so each part is completed.
                answers[i] = fused_search(self, [query])[0]
            else:
                answers[i] = self._complete(query, bound)
        if native:
            for (i, _), hits in zip(native, self.inner._search_many([q for _, q in native]), strict=True):
                answers[i] = hits
        return answers

    def _complete(self, query: Query, bound: Filter | None) -> list[Hit]:
        depth = min(max(2 * query.k, query.k + 32), MAX_K)
        while True:
            wider = replace(query, k=depth, where=bound, with_payload=True)
            hits = self.inner._search_many([wider])[0]
            kept = [hit for hit in hits if filters.evaluate(query.where, hit.payload)][: query.k]
            if len(kept) == query.k or len(hits) < depth:
                break
            if depth == MAX_K:
                raise UnsupportedError(
                    f"found {len(kept)} of {query.k} hits among the {MAX_K} best candidates; this store cannot run "
                    "the condition itself: declare its field in the schema, or use scan",
                )
            depth = min(4 * depth, MAX_K)
        explain = {"filter": "residual"} if query.explain else None
        return [replace(h, payload=h.payload if query.with_payload else {}, explain=explain) for h in kept]
