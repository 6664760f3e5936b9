"""Generated records and filters: what a store finds is what `filters.evaluate` says.

Records come from a seed and filters from Hypothesis, over few field names and values, so that they meet.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from nearest import filters
from nearest.contract import Dense, FieldKind, Query, Store
from nearest.errors import UnsupportedError
from nearest.testing.base import Base, Make, complete, drop_where, plain, put, vector

DECLARED: dict[str, FieldKind] = {
    "keyword": "keyword", "integer": "integer", "float": "float", "bool": "bool", "date": "datetime",
    "o.keyword": "keyword", "o.date": "datetime", "sp ace": "integer",
}  # fmt: skip
_FREE = ["a", "b", "o.x", "o.p.q", "k ey", 'q"uote', "br[0]", "ключ"]
PATHS = [*DECLARED, *_FREE]

_DATES = [
    "2024-05-31", "2024-05-31T00:00:00Z", "2024-05-31T02:00:00+02:00", "2024-05-31T00:00:00.123456Z",
    "2024-05-31T00:00:00.123456789Z", "2024-05-31t00:00:00.1234z", "2024-05-31 00:00:00Z", "1969-12-31T23:59:59-12:00",
    "0001-01-01", "9999-12-31T23:59:59.999999Z", "2024-06-01",
]  # fmt: skip
_NEARLY_DATES = [
    "2024-13-01", "2024-05-31T00:00:00", "20240531", "2024-5-31", "2024-05", "2024", "31 May 2024", "2023-02-29",
    "2024-05-31T00:00:00+0200", "2024-05-31T00:00:00.1234567890Z", "2024-05-31T00:00Z", "2016-12-31T23:59:60Z",
    "2024-05-31T25:00:00Z",
]  # fmt: skip
_WORDS = ["", "x", "X", "xy", "é", "e\u0301", "5", "1", "true", "null", "a b", 'q"', "b\\s", "%", "💡"]
_INTEGERS = [0, 1, -1, 5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
_FLOATS = [0.0, -0.0, 1.0, 0.5, 5.0, -1.5, 0.1, 2.0**53, 2.0**63, -(2.0**63), 1e308, -1e308, 5e-324]
_SCALARS: list[Any] = [*_DATES, *_NEARLY_DATES, *_WORDS, *_INTEGERS, *_FLOATS, True, False]
_BY_KIND: dict[FieldKind, list[Any]] = {
    "keyword": [*_WORDS, *_DATES, *_NEARLY_DATES],
    "integer": _INTEGERS,
    "float": [*_INTEGERS, *_FLOATS],
    "bool": [True, False],
    "datetime": _DATES,
}


# --- records ---------------------------------------------------------------------------------------


def payload(source: random.Random) -> dict[str, Any]:
    """Declared fields of their kinds and others of any, each missing half the time."""
    made: dict[str, Any] = {}
    for path in PATHS:
        if source.random() < 0.5:
            continue
        values = _BY_KIND[DECLARED[path]] if path in DECLARED else _SCALARS
        value = _value(source, values, wild=path not in DECLARED)
        *above, name = path.split(".")
        here = made
        for part in above:
            # `or` replaces a scalar that another path may have left there.
            below = here.get(part)
            here[part] = here = below if isinstance(below, dict) else {}
        here[name] = value
    if source.random() < 0.1:
        made["o"] = source.choice([1, None, [], [{"x": 1, "keyword": 1}], "x"])  # where others reach inside
    if source.random() < 0.1:
        made["o.x"] = source.choice(_SCALARS)  # a dot in a key, which no path reaches
    return made


def _value(source: random.Random, values: list[Any], wild: bool) -> Any:
    form = source.random()
    if form < 0.5:
        return source.choice(values)
    if form < 0.8:
        return [source.choice([*values, None]) for _ in range(source.randint(0, 3))]
    if form < 0.9 or not wild:
        return None
    return source.choice([{}, {"x": source.choice(values)}, [[source.choice(values)]], [{"x": 1}], [[]], [None]])


# --- filters ---------------------------------------------------------------------------------------


def _ordered() -> st.SearchStrategy[Any]:
    return st.sampled_from([*_DATES, *_INTEGERS, *_FLOATS])


def _conditions() -> st.SearchStrategy[Any]:
    scalar = st.sampled_from(_SCALARS)
    nullable = st.one_of(scalar, st.none())
    plain_operator = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), nullable),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(nullable, max_size=3)),
        st.tuples(st.sampled_from(filters.ORDER_OPS), _ordered()),
        st.tuples(st.just("$exists"), st.booleans()),
        st.tuples(st.just("$contains"), scalar),
    )
    operators = st.lists(plain_operator, min_size=1, max_size=2).map(dict)
    return st.one_of(nullable, operators, operators.map(lambda condition: {"$not": condition}))


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    """A `where` over the whole language, up to three levels of $and, $or and $not."""
    fields = st.dictionaries(st.sampled_from(PATHS), _conditions(), min_size=1, max_size=2)
    tree: st.SearchStrategy[dict[str, Any]] = fields
    for _ in range(3):
        branches = st.lists(tree, min_size=1, max_size=3)
        tree = st.one_of(
            fields,
            branches.map(lambda parts: {"$and": parts}),
            branches.map(lambda parts: {"$or": parts}),
            tree.map(lambda part: {"$not": part}),
        )
    return tree


# --- the tests -------------------------------------------------------------------------------------

_RECORDS = 200
_DIFFERENTIAL = int(os.environ.get("NEAREST_DIFFERENTIAL", "500"))


class Generated(Base):
    def test_generated_filters(self, bare: Make) -> None:
        """By search, count and scan; a bare store gives the same or raises."""
        native = bare(self.schema(fields=DECLARED))
        store = complete(native)
        payloads = _fill(store, seed=0)

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(conditions())
        def check(where: dict[str, Any]) -> None:
            tree = filters.parse(where)
            expected = _matching(payloads, where)
            hits = store.search(Query(Dense(vector(0)), k=_RECORDS, where=tree, with_payload=False))
            _same({hit.id for hit in hits}, expected, payloads)
            assert store.count(where) == len(expected)
            _same({record.id for record in store.scan_all(where=where)}, expected, payloads)
            if native is store:
                return
            if all(native.filter_support(node) == "exact" for node in filters.comparisons(tree)):
                assert native.count(where) == len(expected)
            else:
                try:
                    native.count(where)
                except UnsupportedError:
                    return
                raise AssertionError("a condition that the store cannot run exactly did not raise")

        check()

    def test_differential(self, build: Make) -> None:
        """Hundreds of conditions ($NEAREST_DIFFERENTIAL: how many) over 2,000 records: the reference's ids, exactly."""
        store = build(self.schema(fields=DECLARED))
        payloads = _fill(store, seed=2, count=2000)
        compared = 0

        @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=_DIFFERENTIAL)
        @given(conditions())
        def check(where: dict[str, Any]) -> None:
            nonlocal compared
            expected = _matching(payloads, where)
            _same({record.id for record in store.scan_all(where=where)}, expected, payloads)
            compared += 1

        check()
        assert compared >= _DIFFERENTIAL

    def test_generated_filters_with_few_hits(self, build: Make) -> None:
        """The k best among the matching, as when all of them are asked for."""
        store = build(self.schema(fields=DECLARED))
        payloads = _fill(store, seed=1)
        ranked = [hit.id for hit in store.search(Query(Dense(vector(0)), k=_RECORDS))]
        assert len(ranked) == _RECORDS

        @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=_fewer(2))
        @given(conditions(), st.sampled_from([1, 3, 40]))
        def check(where: dict[str, Any], k: int) -> None:
            expected = _matching(payloads, where)
            hits = store.search(Query(Dense(vector(0)), k=k, where=filters.parse(where)))
            assert [hit.id for hit in hits] == [record_id for record_id in ranked if record_id in expected][:k]

        check()

    def test_generated_deletes(self, build: Make) -> None:
        """`delete_where` removes what matches and nothing else."""
        store = build(self.schema(fields=DECLARED))

        @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=_fewer(10))
        @given(conditions(), st.integers(0, 2**32))
        def check(where: dict[str, Any], seed: int) -> None:
            payloads = _fill(store, seed, count=40)
            drop_where(store, where)
            left = {record.id for record in store.scan_all()}
            _same(left, payloads.keys() - _matching(payloads, where), payloads)
            store.delete(left)

        check()


def _fewer(divisor: int) -> int:
    """A share of the profile's examples, for what costs more an example."""
    return max(5, settings().max_examples // divisor)


def _fill(store: Store, seed: int, count: int = _RECORDS) -> dict[str, dict[str, Any]]:
    source = random.Random(seed)
    payloads = {f"r{i:03}": payload(source) for i in range(count)}
    put(store, [plain(i, given) for i, given in enumerate(payloads.values())])
    return payloads


def _matching(payloads: Mapping[str, dict[str, Any]], where: dict[str, Any]) -> set[str]:
    tree = filters.parse(where)
    return {record_id for record_id, value in payloads.items() if filters.evaluate(tree, value)}


def _same(got: set[str], expected: set[str], payloads: Mapping[str, dict[str, Any]]) -> None:
    for record_id in sorted(got - expected)[:3]:
        note(f"found, but does not match: {payloads.get(record_id)}")
    for record_id in sorted(expected - got)[:3]:
        note(f"matches, but was not found: {payloads[record_id]}")
    assert got == expected
