"""Filters by example, on undeclared and on declared fields, and what a bare store must refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nearest import filters
from nearest.contract import Dense, FieldKind, Query, Record, Store
from nearest.errors import InvalidFilter, UnsupportedError
from nearest.testing.base import Base, Make, drop_where, found, plain, put, vector
from nearest.testing.filter_table import TABLE, Row

_DECLARED: dict[FieldKind, tuple[list[Any], list[Any]]] = {
    # kind: payload values, values to compare with
    "keyword": (
        ["x", "y", ["x", "z"], "", [], None, "2024-05-31", "5"],
        ["x", "", "2024-05-31T00:00:00Z", "5", 5, True],
    ),
    "integer": ([0, 1, [1, 2], -5, 2**63 - 1, 2**53 + 1, [], None], [1, 1.0, 1.5, 2**53, 2**63 - 1, "1", True]),
    "float": ([0, 0.5, 1, [1.5, 2], -1e300, [], None, 2**53 + 1], [1, 1.0, 0.5, 2**53, "1", False]),
    "bool": ([True, False, [True, False], [], None], [True, False, 1, 0, "true"]),
    "datetime": (
        ["2024-05-31", "2024-05-31T02:00:00+02:00", "2024-05-31T00:00:00.000001Z", ["1900-01-01", "2100-01-01"], [],
         None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-05-31t12:00:00z"],
        ["2024-05-31", "2024-05-31T00:00:00.000001Z", "1900-01-01T00:00:00Z", "9999-12-31", "x", 2024],
    ),
}  # fmt: skip


class Filtering(Base):
    @pytest.mark.parametrize("group", TABLE, ids=list(TABLE))
    def test_filter_table(self, build: Make, group: str) -> None:
        rows = TABLE[group]
        store = build(self.schema())
        put(store, [plain(i, payload) for i, (_, payload, _) in enumerate(rows)])
        wrong = [
            f"{where} {'should' if expected else 'should not'} match {payload}"
            for i, (where, payload, expected) in enumerate(rows)
            if (f"r{i:03}" in _ids(store, where)) != expected
        ]
        assert wrong == []

    @pytest.mark.parametrize("kind", _DECLARED, ids=list(_DECLARED))
    def test_filters_on_a_declared_field(self, build: Make, kind: FieldKind) -> None:
        """The same meaning as on any other field, whatever index the declaration made."""
        stored, compared = _DECLARED[kind]
        store = build(self.schema(fields={"a": kind, "o.a b": kind}))
        payloads = [{"a": value, "o": {"a b": value}} for value in stored] + [{}, {"o": 1}]
        put(store, [plain(i, payload) for i, payload in enumerate(payloads)])
        conditions: list[dict[str, Any]] = [{"$exists": True}, {"$exists": False}, {"$eq": None}, {"$in": compared}]
        for value in compared:
            conditions += [{op: value} for op in ("$eq", "$ne", "$contains")]
            if not isinstance(value, bool) and (not isinstance(value, str) or filters.instant(value)):
                conditions += [{op: value} for op in filters.ORDER_OPS]
        for path in ("a", "o.a b"):
            for condition in conditions:
                where = {path: condition}
                assert _ids(store, where) == _matching(payloads, where), where

    def test_filters_hold_for_every_verb(self, store: Store) -> None:
        payloads: list[dict[str, Any]] = [{"n": i, "tags": ["odd"] if i % 2 else []} for i in range(20)]
        put(store, [plain(i, payload) for i, payload in enumerate(payloads)])
        for where in ({"tags": "odd"}, {"tags": None}, {"n": {"$gte": 5}, "tags": {"$contains": "odd"}}, {"n": 99}):
            expected = _matching(payloads, where)
            assert found(store, where) == expected
            assert store.count(where) == len(expected)
            assert {record.id for record in store.scan_all(where=where)} == expected
        drop_where(store, {"$not": {"tags": "odd"}})
        assert found(store) == _matching(payloads, {"tags": "odd"})

    def test_k_hits_are_found_where_a_condition_holds_for_the_far_alone(self, store: Store) -> None:
        """The condition is about the text, so that most stores complete it themselves."""
        near = [Record(f"near{i}", {"dense": [1, 1, 1, 1 + i / 1000]}, {"t": "plenty"}) for i in range(300)]
        far = [Record(f"far{i}", {"dense": [-1, -1, 1, i / 10]}, {"t": "a needle here"}) for i in range(3)]
        put(store, near + far)
        hits = store.search(Query(Dense([1, 1, 1, 1]), k=3, where=filters.parse({"t": {"$contains": "needle"}})))
        assert {hit.id for hit in hits} == {"far0", "far1", "far2"}

    def test_conditions_may_be_deep_and_wide(self, store: Store) -> None:
        put(store, [plain(i, {"n": i}) for i in range(10)])
        deep: dict[str, Any] = {"n": 3}
        for _ in range(filters.MAX_DEPTH - 2):
            deep = {"$not": deep}
        assert filters.MAX_DEPTH % 2 == 0
        assert _ids(store, deep) == {"r003"}
        assert _ids(store, {"$or": [{"n": i} for i in range(0, 2000, 2)]}) == {f"r{i:03}" for i in range(0, 10, 2)}
        assert _ids(store, {"n": {"$in": list(range(5, 3000))}}) == {f"r{i:03}" for i in range(5, 10)}
        assert _ids(store, {"$and": [{"n": {"$ne": i}} for i in range(9)]}) == {"r009"}

    def test_whole_and_empty_conditions(self, store: Store) -> None:
        """`And(())` holds for all and `Or(())` for none, also under `Not`, though `parse` makes neither."""
        put(store, [plain(i, {"n": i}) for i in range(3)])
        every = {"r000", "r001", "r002"}
        trees: list[tuple[filters.Filter, set[str]]] = [
            (filters.EVERYTHING, every),
            (filters.NOTHING, set()),
            (filters.Not(filters.EVERYTHING), set()),
            (filters.Not(filters.NOTHING), every),
            (
                filters.And((filters.EVERYTHING, filters.Or((filters.NOTHING, filters.Comparison(("n",), "$eq", 1))))),
                {"r001"},
            ),
        ]
        for tree, ids in trees:
            assert {record.id for record in store.scan_all(where=tree)} == ids
            assert store.count(tree) == len(ids)
            assert {hit.id for hit in store.search(Query(Dense(vector(0)), where=tree))} == ids

    def test_bad_conditions_are_refused_by_every_verb(self, store: Store) -> None:
        put(store, [plain(0, {"a": 1})])
        bad: list[Any] = [
            {},
            {"a": {}},
            {"$and": []},
            {"a": {"$near": 1}},
            {"$xor": []},
            [1],
            {"a": {"$gt": "x"}},
            "a = 1",
        ]
        for where in bad:
            with pytest.raises(InvalidFilter):
                store.count(where)
            with pytest.raises(InvalidFilter):
                store.scan(where=where)
            with pytest.raises(InvalidFilter):
                store.delete_where(where)
            with pytest.raises(InvalidFilter):
                store.search(Query(Dense(vector(0)), where=where))
        assert store.count() == 1

    def test_a_bare_store_runs_a_condition_exactly_or_raises(self, bare: Make) -> None:
        """By what `filter_support` says of each comparison; nothing is dropped."""
        rows: list[Row] = [row for group in TABLE.values() for row in group]
        store = bare(self.schema())
        payloads = [payload for _, payload, _ in rows]
        put(store, [plain(i, payload) for i, payload in enumerate(payloads)])
        seen: list[dict[str, Any]] = []
        for where, _, _ in rows:
            if where in seen:
                continue
            seen.append(where)
            tree = filters.parse(where)
            assert tree is not None
            if all(store.filter_support(node) == "exact" for node in filters.comparisons(tree)):
                assert _ids(store, where) == _matching(payloads, where), where
                continue
            with pytest.raises(UnsupportedError):
                store.search(Query(Dense(vector(0)), where=tree))
            with pytest.raises(UnsupportedError):
                store.count(where)
            with pytest.raises(UnsupportedError):
                store.scan(where=where)
            with pytest.raises(UnsupportedError):
                store.delete_where(where)
        assert store.count() == len(rows)


def _ids(store: Store, where: Mapping[str, Any]) -> set[str]:
    """By search, and count says the same; `test_generated_filters` holds scan to it too."""
    ids = found(store, where)
    assert store.count(where) == len(ids), where
    return ids


def _matching(payloads: list[dict[str, Any]], where: Mapping[str, Any]) -> set[str]:
    tree = filters.parse(where)
    return {f"r{i:03}" for i, payload in enumerate(payloads) if filters.evaluate(tree, payload)}
