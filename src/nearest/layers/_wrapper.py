"""What all layers share: a store that hands every call to the store it wraps.

A layer overrides only what it changes: one verb (`_search_many`, say), or `_call`, through which all of them go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from nearest import filters
from nearest.contract import Hit, Page, Query, Record, Store
from nearest.filters import Comparison, Filter

Operation = Literal[
    "upsert", "delete", "delete_where", "get", "count", "scan", "search", "optimize", "flush", "wait", "stats"
]
P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", Record, str)
"""Of the batches that are written: of `upsert` a record, of `delete` an id."""


def id_of(item: Record | str) -> str:
    return item if isinstance(item, str) else item.id


class Layer(Store):
    """Forwards everything. Calls come here validated, so the inner store's underscored methods are called."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.schema = inner.schema
        self.capabilities = inner.capabilities  # type: ignore[misc]  # a layer has those of what it wraps

    def _call(self, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Every call of the inner store except `close`."""
        return verb(*args, **kwargs)

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return self.inner.filter_support(comparison)

    def check_filter(self, condition: Filter | None) -> None:
        self.inner.check_filter(condition)

    def plan(self, query: Query) -> dict[str, list[str]]:
        return self.inner.plan(query)

    def close(self) -> None:
        self.inner.close()

    def optimize(self) -> None:
        self._call("optimize", self.inner.optimize)

    def flush(self) -> None:
        self._call("flush", self.inner.flush)

    def wait(self) -> None:
        self._call("wait", self.inner.wait)

    def stats(self) -> dict[str, Any]:
        return self._call("stats", self.inner.stats)

    def _check(self, record: Record) -> None:
        self.inner._check(record)

    def _upsert(self, records: list[Record]) -> None:
        self._call("upsert", self.inner._upsert, records)

    def _delete(self, ids: list[str]) -> None:
        self._call("delete", self.inner._delete, ids)

    def _delete_where(self, where: Filter) -> None:
        self._call("delete_where", self.inner._delete_where, where)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        return self._call("get", self.inner._get, ids, with_vectors)

    def _count(self, where: Filter | None) -> int:
        return self._call("count", self.inner._count, where)

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        return self._call("scan", self.inner._scan, cursor, limit, where, with_vectors)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        return self._call("search", self.inner._search_many, queries)
