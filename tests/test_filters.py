"""The filter language: refusals word for word, the meaning by table and by a second opinion, and transformations."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nearest import filters
from nearest.errors import InvalidFilter
from nearest.filters import And, Comparison, Filter, Loose, Not, Or, evaluate, parse
from nearest.testing import generated
from nearest.testing.filter_table import TABLE

NAN = float("nan")
_WHERE = generated.conditions()
_SOURCE = st.integers(0, 2**32).map(random.Random)
KNOWN = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $and, $or, $not, $exists, $contains"


def _nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


# --- parsing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([], "where: needs an object of conditions, got list"),
        ("a = 1", "where: needs an object of conditions, got string"),
        (5, "where: needs an object of conditions, got int"),
        ({}, "where: the object is empty; leave `where` out to match everything"),
        ({1: 2}, "where: field names are strings, got int"),
        ({"$and": {}}, "where.$and: needs a list of conditions, got object"),
        ({"$and": []}, "where.$and: the list is empty; give at least one condition"),
        ({"$or": []}, "where.$or: the list is empty; give at least one condition"),
        ({"$or": [{"a": 1}, {}]}, "where.$or[1]: the object is empty; leave `where` out to match everything"),
        ({"$or": [{"a": 1}, None]}, "where.$or[1]: needs an object of conditions, got null"),
        ({"$not": [{"a": 1}]}, "where.$not: needs an object of conditions, got list"),
        ({"$not": {}}, "where.$not: the object is empty; leave `where` out to match everything"),
        ({"$eq": 1}, 'where.$eq: $eq belongs under a field: {"field": {"$eq": ...}}'),
        ({"$xor": []}, f"where.$xor: unknown operator $xor; known are {KNOWN}"),
        ({"": 1}, "where.: a field name has an empty part"),
        ({"a..b": 1}, "where.a..b: a field name has an empty part"),
        ({"a.": 1}, "where.a.: a field name has an empty part"),
        ({"a": {}}, "where.a: the object is empty; give an operator such as $eq"),
        ({"a": {"b": 1}}, "where.a: expected an operator, got 'b'; reach into objects with dots: \"a.b\""),
        ({"a": {"$and": []}}, 'where.a: $and belongs above the field: {"$and": [{...}, {...}]}'),
        ({"a": {"$near": 1}}, f"where.a: unknown operator $near; known are {KNOWN}"),
        ({"a": [1]}, 'where.a: a list is not a value to equal; use {"$in": [...]}'),
        ({"a": {"$eq": [1]}}, "where.a: $eq needs a string, a number or a boolean, got list"),
        ({"a": {"$ne": [1]}}, "where.a: $ne needs a string, a number or a boolean, got list"),
        ({"a": {"$eq": {"b": 1}}}, "where.a: $eq needs a string, a number or a boolean, got object"),
        ({"a": {"$contains": None}}, "where.a: $contains needs a string, a number or a boolean, got null"),
        ({"a": {"$contains": ["x"]}}, "where.a: $contains needs a string, a number or a boolean, got list"),
        ({"a": b"x"}, "where.a: $eq needs a string, a number or a boolean, got bytes"),
        ({"a": {"$in": 1}}, "where.a: $in needs a list, got int"),
        ({"a": {"$nin": "ab"}}, "where.a: $nin needs a list, got string"),
        ({"a": {"$in": [1, [2]]}}, "where.a: $in[1] needs a string, a number or a boolean, got list"),
        ({"a": {"$nin": [None, {}]}}, "where.a: $nin[1] needs a string, a number or a boolean, got object"),
        ({"a": {"$exists": 1}}, "where.a: $exists needs true or false, got int"),
        ({"a": {"$exists": None}}, "where.a: $exists needs true or false, got null"),
        ({"$and": [{"a": 1}, {"year": {"$gt": [2]}}]}, "where.$and[1].year: $gt needs a number or a date, got list"),
        ({"a": {"$gte": True}}, "where.a: $gte needs a number or a date, got boolean"),
        ({"a": {"$lt": None}}, "where.a: $lt needs a number or a date, got null"),
        (
            {"a": {"$lte": "soon"}},
            "where.a: $lte needs a number or a date, got the string 'soon'; dates are RFC 3339, such as 2024-05-31 "
            "or 2024-05-31T12:00:00Z",
        ),
        ({"a": 2**63}, "where.a: $eq got an integer over 64 bits"),
        ({"a": {"$in": [0, -(2**63) - 1]}}, "where.a: $in[1] got an integer over 64 bits"),
        ({"a": NAN}, "where.a: $eq needs a finite number, got nan"),
        ({"a": {"$gt": float("inf")}}, "where.a: $gt needs a finite number, got inf"),
        ({"a": {"$gt": datetime(2024, 5, 31)}}, "where.a: $gt got a datetime without a time zone; give it one"),
        ({"a": {"$not": {"$not": {}}}}, "where.a.$not.$not: the object is empty; give an operator such as $eq"),
        (
            {"a": 1, "b": {"$lt": 1, "$gt": "x"}},
            "where.b: $gt needs a number or a date, got the string 'x'; dates are RFC 3339, such as 2024-05-31 or "
            "2024-05-31T12:00:00Z",
        ),
    ],
)  # fmt: skip
def test_refusals_name_the_path(where: Any, message: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(where)
    assert str(caught.value) == message


def test_nesting_has_a_limit() -> None:
    assert evaluate(parse(_nested(filters.MAX_DEPTH - 1)), {"a": 1}) is False
    too_deep = r"\$not: nested deeper than 32 levels; flatten the condition|a: nested deeper than 32 levels"
    with pytest.raises(InvalidFilter, match=too_deep):
        parse(_nested(filters.MAX_DEPTH))
    with pytest.raises(InvalidFilter, match="nested deeper"):
        parse(_nested(100_000))
    field: Any = 1
    for _ in range(1000):
        field = {"$not": field}
    with pytest.raises(InvalidFilter, match="nested deeper"):
        parse({"a": field})


def test_the_tree() -> None:
    a, b = Comparison(("a",), "$eq", 1), Comparison(("b", "c"), "$gt", 2.5)
    assert parse(None) is None
    assert parse({"a": 1}) == a
    assert parse({"a": 1, "b.c": {"$gt": 2.5}}) == And((a, b))
    assert parse({"$or": [{"a": 1}, {"b.c": {"$gt": 2.5}}]}) == Or((a, b))
    assert parse({"$and": [{"a": 1}]}) == And((a,))
    assert parse({"a": {"$ne": 1}}) == parse({"$not": {"a": 1}}) == parse({"a": {"$not": {"$eq": 1}}}) == Not(a)
    assert parse({"a": None}) == parse({"a": {"$exists": False}}) == Not(Comparison(("a",), "$exists", True))
    assert parse({"a": {"$ne": None}}) == Not(Not(Comparison(("a",), "$exists", True)))
    among = Comparison(("a",), "$in", (1, "x"))
    assert parse({"a": {"$in": [1, "x"]}}) == parse({"a": {"$in": (1, "x")}}) == among
    assert parse({"a": {"$nin": [1, "x"]}}) == Not(among)
    assert parse({"a": {"$in": [1, None, "x"]}}) == Or((among, Not(Comparison(("a",), "$exists", True))))


def test_a_parsed_tree_is_taken_as_it_is() -> None:
    trees: list[Filter] = [Comparison(("a",), "$eq", 1), filters.EVERYTHING, filters.NOTHING, Not(filters.NOTHING)]
    for tree in trees:
        assert parse(tree) is tree


def test_python_dates_become_rfc_3339() -> None:
    zone = timezone(timedelta(hours=2))
    assert parse({"a": datetime(2024, 5, 31, 14, 30, tzinfo=zone)}) == Comparison(("a",), "$eq", "2024-05-31T12:30:00Z")
    assert parse({"a": {"$gt": date(2024, 5, 31)}}) == Comparison(("a",), "$gt", "2024-05-31")
    early = parse({"a": {"$lt": datetime(1, 1, 1, 0, 0, 0, 5, tzinfo=UTC)}})
    assert early == Comparison(("a",), "$lt", "0001-01-01T00:00:00.000005Z")


# --- the meaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", TABLE, ids=list(TABLE))
def test_the_table(group: str) -> None:
    for where, payload, expected in TABLE[group]:
        assert evaluate(parse(where), payload) is expected, f"{where} on {payload}"


def test_no_condition_matches_everything() -> None:
    assert evaluate(None, {}) is True
    assert evaluate(filters.EVERYTHING, {}) is True
    assert evaluate(filters.NOTHING, {"a": 1}) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-31", datetime(2024, 5, 31, tzinfo=UTC)),
        ("2024-05-31T12:00:00Z", datetime(2024, 5, 31, 12, tzinfo=UTC)),
        ("2024-05-31t12:00:00z", datetime(2024, 5, 31, 12, tzinfo=UTC)),
        ("2024-05-31 12:00:00+05:30", datetime(2024, 5, 31, 6, 30, tzinfo=UTC)),
        ("2024-05-31T12:00:00.5Z", datetime(2024, 5, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-05-31T12:00:00.123456789-00:00", datetime(2024, 5, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", None),  # before the first year that Python counts
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        *((text, None) for text in (
            "", "2024", "2024-05", "2024-5-31", "20240531", "2024-02-30", "2024-13-01", "2024-05-31T12:00:00",
            "2024-05-31T12:00Z", "2024-05-31T24:00:00Z", "2024-05-31T12:60:00Z", "2024-05-31T12:00:60Z",
            "2024-05-31T12:00:00.Z", "2024-05-31T12:00:00.1234567890Z", "2024-05-31T12:00:00+0200",
            "2024-05-31T12:00:00+24:00", " 2024-05-31", "2024-05-31 ", "2024-05-31\n", "٢٠٢٤-٠٥-٣١",
            "2024-05-31X12:00:00Z",
        )),
    ],
)  # fmt: skip
def test_instants(text: str, expected: datetime | None) -> None:
    assert filters.instant(text) == expected


def test_a_payload_of_tuples_is_as_one_of_lists() -> None:
    assert evaluate(parse({"a": 1}), {"a": (2, 1)})
    assert evaluate(parse({"a": {"$contains": "x"}}), {"a": ("x",)})
    assert evaluate(parse({"a": None}), {"a": ()})


# A second opinion, from the sentences of the language and over the condition as it is written: it shares
# no code with `filters`, reads dates by arithmetic, and looks at a field's values one by one.


def opinion(where: Mapping[str, Any], payload: Mapping[str, Any]) -> bool:
    return all(_clause(key, value, payload) for key, value in where.items())


def _clause(key: str, value: Any, payload: Mapping[str, Any]) -> bool:
    if key == "$and":
        return False not in [opinion(part, payload) for part in value]
    if key == "$or":
        return True in [opinion(part, payload) for part in value]
    if key == "$not":
        return not opinion(value, payload)
    return _field(_reach(payload, key), value)


def _reach(payload: Any, path: str) -> Any:
    first, _, rest = path.partition(".")
    inside = payload[first] if isinstance(payload, dict) and first in payload else None
    return _reach(inside, rest) if rest else inside


def _field(field: Any, condition: Any) -> bool:
    if not isinstance(condition, dict):
        return _holds(field, "$eq", condition)
    return all(
        not _field(field, operand) if op == "$not" else _holds(field, op, operand) for op, operand in condition.items()
    )


def _holds(field: Any, op: str, operand: Any) -> bool:
    values = field if isinstance(field, list) else [] if field is None else [field]
    match op:
        case "$ne":
            return not _holds(field, "$eq", operand)
        case "$nin":
            return not _holds(field, "$in", operand)
        case "$in":
            return any(_holds(field, "$eq", one) for one in operand)
        case "$exists":
            return operand is bool(values)
        case "$eq" if operand is None:
            return not values
        case "$contains" if isinstance(field, str):
            return isinstance(operand, str) and field.find(operand) >= 0
        case "$contains":
            return isinstance(field, list) and _holds(field, "$eq", operand)
    for value in values:
        one, other = _point(value), _point(operand)
        if op == "$eq":
            if (value == operand and type(value) is type(operand)) or (one is not None and one == other):
                return True
        elif one is not None and other is not None and one[0] == other[0]:
            below, same = one[1] < other[1], one[1] == other[1]
            if {"$lt": below, "$lte": below or same, "$gt": not below and not same, "$gte": not below}[op]:
                return True
    return False


def _point(value: Any) -> tuple[str, Fraction] | None:
    """A number, or a date in microseconds since the year 0; neither is comparable with the other."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return "number", Fraction(value)
    found = isinstance(value, str) and re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"([Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})([.][0-9]{1,9})?([Zz]|([+-])([0-9]{2}):([0-9]{2})))?",
        value,
    )
    if not found:
        return None
    year, month, day = (int(found[i]) for i in (1, 2, 3))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1]:
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + sum(lengths[: month - 1]) + day - 1
    micros = days * 86_400_000_000
    if found[4]:
        hour, minute, second = (int(found[i]) for i in (5, 6, 7))
        if hour > 23 or minute > 59 or second > 59:
            return None
        micros += ((hour * 60 + minute) * 60 + second) * 1_000_000
        micros += int((found[8] or ".0")[1:].ljust(6, "0")[:6])
        if found[10]:
            if int(found[11]) > 23 or int(found[12]) > 59:
                return None
            shift = (int(found[11]) * 60 + int(found[12])) * 60_000_000
            micros += -shift if found[10] == "+" else shift
    return "date", Fraction(micros)


@given(_WHERE, _SOURCE)
def test_a_second_opinion_agrees(where: dict[str, Any], source: random.Random) -> None:
    tree = parse(where)
    for _ in range(30):
        payload = generated.payload(source)
        assert evaluate(tree, payload) == opinion(where, payload), payload


def test_the_second_opinion_agrees_with_the_table() -> None:
    for rows in TABLE.values():
        for where, payload, expected in rows:
            if not _holds_dates(where):
                assert opinion(where, payload) is expected, f"{where} on {payload}"


def _holds_dates(where: Any) -> bool:
    if isinstance(where, dict):
        return any(_holds_dates(value) for value in where.values())
    return isinstance(where, date)


@given(st.text("0123456789-:TtZz+. ", max_size=30) | st.datetimes(timezones=st.timezones()).map(datetime.isoformat))
@example("2024-02-29T23:59:59.1+00:01")
def test_dates_are_read_as_by_arithmetic(text: str) -> None:
    point, read = _point(text), filters.instant(text)
    if read is None:
        # Python's calendar ends at both sides; arithmetic goes on.
        assert point is None or text[:4] in ("0001", "9999")
    else:
        assert point == ("date", Fraction((read - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)))


# --- laws ------------------------------------------------------------------------------------------


@given(_WHERE, _WHERE, _SOURCE)
def test_de_morgan(a: dict[str, Any], b: dict[str, Any], source: random.Random) -> None:
    laws: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"$not": {"$and": [a, b]}}, {"$or": [{"$not": a}, {"$not": b}]}),
        ({"$not": {"$or": [a, b]}}, {"$and": [{"$not": a}, {"$not": b}]}),
        ({"$not": {"$not": a}}, a),
        ({"$and": [a, {"$or": [a, b]}]}, a),
    ]
    for _ in range(5):
        payload = generated.payload(source)
        for left, right in laws:
            assert evaluate(parse(left), payload) == evaluate(parse(right), payload)
        assert evaluate(parse(a), payload) != evaluate(parse({"$not": a}), payload)


@given(st.sampled_from(generated.PATHS), st.sampled_from(generated._SCALARS), _SOURCE)
def test_operators_explain_each_other(path: str, value: Any, source: random.Random) -> None:
    def holds(condition: Any) -> bool:
        return evaluate(parse({path: condition}), payload)

    for _ in range(20):
        payload = generated.payload(source)
        assert holds({"$ne": value}) == (not holds({"$eq": value}))
        assert holds({"$nin": [value, None]}) == (not holds({"$in": [value, None]}))
        assert holds({"$in": [value, None]}) == (holds({"$eq": value}) or holds(None))
        assert holds({"$exists": True}) == (not holds(None))
        assert not (holds({"$eq": value}) and holds(None))
        if not isinstance(value, bool) and (not isinstance(value, str) or filters.instant(value)):
            assert holds({"$gte": value}) == (holds({"$gt": value}) or holds({"$eq": value}))
            assert holds({"$lte": value}) == (holds({"$lt": value}) or holds({"$eq": value}))


@given(_WHERE, _SOURCE)
def test_under_moves_a_condition_one_object_deeper(where: dict[str, Any], source: random.Random) -> None:
    tree = parse(where)
    deeper = filters.under(tree, "metadata")
    payload = generated.payload(source)
    assert evaluate(deeper, {"metadata": payload}) == evaluate(tree, payload)
    assert evaluate(deeper, {**payload, "metadata": {}}) == evaluate(tree, {})
    assert filters.under(None, "metadata") is None
    assert all(node.path[0] == "metadata" for node in filters.comparisons(deeper))
    assert len(list(filters.comparisons(deeper))) == len(list(filters.comparisons(tree)))


# --- upper bounds ----------------------------------------------------------------------------------

_SUPPORT: st.SearchStrategy[filters.Support] = st.sampled_from(["exact", "superset", "none"])


def _over_matching(node: Filter | None, payload: Mapping[str, Any], extra: Any) -> bool:
    """A store's evaluation of a bound: `Loose` matches what it should, and more."""
    match node:
        case And(parts):
            return all(_over_matching(part, payload, extra) for part in parts)
        case Or(parts):
            return any(_over_matching(part, payload, extra) for part in parts)
        case Not(part):
            return not _over_matching(part, payload, extra)
        case Loose(part):
            return evaluate(part, payload) or extra(part)
        case _:
            return evaluate(node, payload)


@given(_WHERE, st.data(), _SOURCE)
def test_an_upper_bound_loses_no_match(where: dict[str, Any], data: st.DataObject, source: random.Random) -> None:
    tree = parse(where)
    assert tree is not None
    chosen: dict[Comparison, filters.Support] = {}

    def support(node: Comparison) -> filters.Support:
        if node not in chosen:
            chosen[node] = data.draw(_SUPPORT)
        return chosen[node]

    bound, exact = filters.upper_bound(tree, support)
    assert exact == (set(chosen.values()) <= {"exact"})
    assert not _loose_in_a_complement(bound, False), "a complement of an over-match would lose matches"
    assert all(chosen[node] != "none" for node in filters.comparisons(bound))
    for _ in range(10):
        payload = generated.payload(source)
        surplus = {node: source.random() < 0.5 for node in chosen}
        if evaluate(tree, payload):
            assert _over_matching(bound, payload, lambda node: surplus[node])  # noqa: B023 -- called at once
        if exact:
            assert evaluate(bound, payload) == evaluate(tree, payload)


def _loose_in_a_complement(node: Filter | None, under: bool) -> bool:
    match node:
        case And(parts) | Or(parts):
            return any(_loose_in_a_complement(part, under) for part in parts)
        case Not(part):
            return _loose_in_a_complement(part, not under)
        case Loose():
            return under
    return False


def test_an_upper_bound_by_hand() -> None:
    a, b = Comparison(("a",), "$eq", 1), Comparison(("b",), "$contains", "x")
    support: dict[str, dict[Comparison, filters.Support]] = {
        "superset": {a: "exact", b: "superset"},
        "none": {a: "exact", b: "none"},
    }
    loose, none = support["superset"].__getitem__, support["none"].__getitem__
    assert filters.upper_bound(And((a, b)), loose) == (And((a, Loose(b))), False)
    assert filters.upper_bound(And((a, b)), none) == (And((a, filters.EVERYTHING)), False)
    assert filters.upper_bound(Or((a, b)), none) == (Or((a, filters.EVERYTHING)), False)
    assert filters.upper_bound(Not(And((a, b))), loose) == (Not(And((a, filters.NOTHING))), False)
    assert filters.upper_bound(Not(a), loose) == (Not(a), True)
    assert filters.upper_bound(Not(Not(b)), none) == (Not(Not(filters.EVERYTHING)), False)
