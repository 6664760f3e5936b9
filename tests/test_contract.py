"""The contract's own code: validation word for word, schemas as JSON, and the public methods of `Store`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearest import contract, filters
from nearest.contract import (
    Capabilities,
    Dense,
    Document,
    Feature,
    FieldKind,
    Fused,
    Hit,
    IndexParams,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Text,
    VectorSpec,
    check_document,
    check_record,
    check_schema,
    explain_parts,
    part_name,
)
from nearest.errors import (
    BatchFailed,
    InvalidDocument,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    UnsupportedError,
)
from nearest.layers.lexical import Lexical, companion_schema
from nearest.layers.retry import Retry
from nearest.stores.memory import MemoryStore

SCHEMA = Schema(
    vectors={"dense": VectorSpec(2), "tokens": VectorSpec(2, "dot", multi=True)},
    sparse=("words",),
    text="page.body",
    fields={"year": "integer", "o.day": "datetime"},
)
GOOD: dict[str, Any] = {"dense": [1, 2], "tokens": [[1, 2]]}


def _sparse(indices: Any, values: Any) -> SparseVector:
    return SparseVector(np.asarray(indices), np.asarray(values))


# --- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "record '': id is empty; give 1 to 512 characters"),
        ({"id": 5}, "record 5: id must be a string, got int"),
        ({"id": "x" * 513}, "record '" + "x" * 56 + "...: id has 513 characters; at most 512 are allowed"),
        ({"id": "a\ud800"}, "record 'a\\ud800': id holds a lone surrogate; decode it with the right encoding"),
        ({"vectors": [1]}, "record 'a': vectors must be an object (dict) by name, got list"),
        ({"vectors": {"tokens": [[1, 2]]}}, "record 'a': lacks vector 'dense', which the schema declares"),
        (
            {"vectors": GOOD | {"other": [1]}},
            "record 'a': vector 'other' is not in the schema, which has ['dense', 'tokens', 'words']",
        ),
        ({"vectors": GOOD | {"dense": [1, 2, 3]}}, "record 'a': vector 'dense' has dimension 3; the schema says 2"),
        ({"vectors": GOOD | {"dense": [[1, 2]]}}, "record 'a': vector 'dense' has shape (1, 2); the schema says (2,)"),
        (
            {"vectors": GOOD | {"tokens": [1, 2]}},
            "record 'a': vector 'tokens' has shape (2,); the schema says (t, 2) with t of 1 or more",
        ),
        (
            {"vectors": GOOD | {"tokens": np.zeros((0, 2))}},
            "record 'a': vector 'tokens' has shape (0, 2); the schema says (t, 2) with t of 1 or more",
        ),
        (
            {"vectors": GOOD | {"dense": [1, float("nan")]}},
            "record 'a': vector 'dense' holds NaN or infinity (or a number beyond float32)",
        ),
        (
            {"vectors": GOOD | {"dense": [1e39, 0]}},
            "record 'a': vector 'dense' holds NaN or infinity (or a number beyond float32)",
        ),
        (
            {"vectors": GOOD | {"dense": [0, 0]}},
            "record 'a': vector 'dense' is zero, which has no direction; cosine needs a length above 0",
        ),
        ({"vectors": GOOD | {"words": [1]}}, "record 'a': vector 'words' needs a SparseVector, got list"),
        (
            {"vectors": GOOD | {"words": _sparse([1, 2], [1.0])}},
            "record 'a': vector 'words' indices (2,) and values (1,) must be of one length",
        ),
        (
            {"vectors": GOOD | {"words": _sparse([-1], [1.0])}},
            "record 'a': vector 'words' indices must be integers from 0 to 2^32 - 1",
        ),
        ({"vectors": GOOD | {"words": _sparse([7, 7], [1.0, 1.0])}}, "record 'a': vector 'words' indices repeat"),
        (
            {"vectors": GOOD | {"words": _sparse([7], [float("inf")])}},
            "record 'a': vector 'words' values hold NaN or infinity",
        ),
        ({"payload": [1]}, "record 'a': payload must be an object (dict), got list"),
        ({"payload": {"a": {1: 2}}}, "record 'a': payload.a has the key 1; JSON keys are strings"),
        (
            {"payload": {"a": [0, float("nan")]}},
            "record 'a': payload.a[1] is nan, which JSON cannot hold; use null",
        ),
        (
            {"payload": {"a": {"b": 2**63}}},
            "record 'a': payload.a.b holds an integer over 64 bits; store it as a string",
        ),
        (
            {"payload": {"a": {1}}},
            "record 'a': payload.a is set, which is not JSON; convert it to a string, a number, a boolean, null, "
            "a list or an object",
        ),
        (
            {"payload": {"a": "\udc80"}},
            "record 'a': payload.a holds a lone surrogate; decode it with the right encoding",
        ),
        ({"payload": {"year": "2024"}}, "record 'a': payload.year: declared as integer, got str '2024'"),
        ({"payload": {"year": [1, True]}}, "record 'a': payload.year: declared as integer, got bool True"),
        (
            {"payload": {"o": {"day": "today"}}},
            "record 'a': payload.o.day: declared as datetime (RFC 3339, such as 2024-05-31T12:00:00Z), got str 'today'",
        ),
        (
            {"payload": {"page": {"body": 5}}},
            "record 'a': payload.page.body: the text field holds int, not a string",
        ),
    ],
)  # fmt: skip
def test_refusals_of_records(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        check_record(SCHEMA, replace(Record("a", GOOD), **changes))
    assert str(caught.value) == message


def test_what_is_no_record() -> None:
    wrong: Any = {"id": "a"}
    with pytest.raises(InvalidRecord, match="expected a Record, got dict"):
        check_record(SCHEMA, wrong)


def test_a_checked_record_is_plain() -> None:
    class Text(str):
        pass

    payload: Any = MappingProxyType({"a": (1, OrderedDict(b=Text("x"))), "year": 2024})
    vectors = GOOD | {"words": _sparse([9, 3], [0.5, 1.5])}
    checked = check_record(SCHEMA, Record("a", vectors, payload))
    assert json.dumps(checked.payload) == '{"a": [1, {"b": "x"}], "year": 2024}'
    assert type(checked.payload) is dict
    assert type(checked.payload["a"][1]["b"]) is str
    assert checked.vectors["dense"].dtype == np.float32
    assert checked.vectors["tokens"].shape == (1, 2)
    words = checked.vectors["words"]
    assert (words.indices.tolist(), words.values.tolist()) == ([3, 9], [1.5, 0.5])
    assert (words.indices.dtype, words.values.dtype) == (np.uint32, np.float32)


def test_a_length_beyond_float32_is_no_fault_of_the_vector() -> None:
    """Its square under- or overflows, and the vector itself does not."""
    for value in ([1e-30, 1e-30], [1e30, 1e30]):
        metric: Any
        for metric in ("dot", "l2"):
            np.testing.assert_array_equal(
                contract.check_vector(VectorSpec(2, metric), value), np.array(value, np.float32)
            )
        np.testing.assert_allclose(contract.check_vector(VectorSpec(2), value), [0.5**0.5] * 2, rtol=1e-6)


def test_nesting_has_a_limit() -> None:
    payload: dict[str, Any] = {}
    for _ in range(contract.MAX_NESTING - 1):
        payload = {"a": payload}
    schema = Schema(text="body")
    check_record(schema, Record("a", payload=payload))
    with pytest.raises(InvalidRecord, match="nested deeper than 64 levels"):
        check_record(schema, Record("a", payload={"a": {"a": payload}}))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_all_json_is_taken(payload: dict[str, Any]) -> None:
    checked = contract.check_json_object(payload, "payload")
    assert json.dumps(checked) == json.dumps(payload)
    assert json.loads(contract.canonical_json(checked)) == payload


@given(_JSON)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(inner)}
        return [turned(item) for item in inner] if isinstance(inner, list) else inner

    assert contract.canonical_json(turned(value)) == contract.canonical_json(value)


# --- documents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": "a"}, "expected a Document, got dict"),
        (Document("", "x"), "document '': id is empty; give 1 to 512 characters"),
        (Document("a", " \n"), "document 'a': text is empty; give it something to index"),
        (Document("a", b"x"), "document 'a': text must be a string, got bytes"),  # type: ignore[arg-type]
        (
            Document("a", "x\ud800"),
            "document 'a': text holds a lone surrogate; decode the source with the right encoding",
        ),
        (Document("a", "x", {"a": float("inf")}), "document 'a': metadata.a is inf, which JSON cannot hold; use null"),
        (Document("a", "x", [1]), "document 'a': metadata must be an object (dict), got list"),  # type: ignore[arg-type]
    ],
)
def test_refusals_of_documents(document: Any, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        check_document(document)
    assert str(caught.value) == message


def test_a_checked_document_is_plain() -> None:
    checked = check_document(Document("a", "text", MappingProxyType({"a": (1,)})))
    assert checked == Document("a", "text", {"a": [1]})
    assert type(checked.metadata) is dict


# --- schemas ---------------------------------------------------------------------------------------

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_PATHS = st.lists(_NAMES.filter(lambda name: "." not in name), min_size=1, max_size=3).map(".".join)
_SPECS = st.builds(VectorSpec, st.integers(1, 65_536), st.sampled_from(["cosine", "dot", "l2"]), st.booleans())
_SCHEMAS = st.builds(
    Schema,
    vectors=st.dictionaries(_NAMES.map("v".__add__), _SPECS, min_size=1, max_size=3),
    sparse=st.lists(_NAMES.map("s".__add__), max_size=2, unique=True).map(tuple),
    text=st.none() | _PATHS,
    language=st.sampled_from(["english", "german"]),
    fields=st.dictionaries(_PATHS, st.sampled_from(get_args(FieldKind)), max_size=3),
    index=st.builds(
        IndexParams,
        m=st.integers(1, 100),
        quantization=st.sampled_from(["none", "scalar", "product", "binary"]),
        rescore=st.booleans(),
        oversampling=st.floats(1, 100),
    ),
)


@given(_SCHEMAS)
def test_a_schema_survives_json(schema: Schema) -> None:
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_a_schemas_json_is_pinned() -> None:
    """It is in every collection's folder: what an older version wrote must still be read."""
    schema = Schema({"d": VectorSpec(3)}, ("s",), "t", fields={"a.b": "float"}, index=IndexParams(m=8))
    assert json.dumps(schema.to_json()) == (
        '{"vectors": {"d": {"dim": 3, "metric": "cosine", "multi": false}}, "sparse": ["s"], "text": "t", '
        '"language": "english", "fields": {"a.b": "float"}, "index": {"m": 8, "ef_construct": 128, "ef": 100, '
        '"quantization": "none", "rescore": true, "oversampling": 2.0}}'
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schema(), "a schema needs at least one vector, sparse vector or text field"),
        (lambda: Schema({"a": VectorSpec(1)}, ("a",)), "vector names must be distinct and not empty, got ['a', 'a']"),
        (lambda: Schema({"": VectorSpec(1)}), "vector names must be distinct and not empty, got ['']"),
        (lambda: Schema(text="a..b"), "text: 'a..b' has an empty part"),
        (lambda: Schema(text=""), "text: '' has an empty part"),
        (lambda: Schema(text="a", fields={".b": "float"}), "fields: '.b' has an empty part"),
        (
            lambda: Schema(text="a", fields={"b": "text"}),  # type: ignore[dict-item]
            "fields.b: kind must be keyword, integer, float, bool or datetime, got 'text'",
        ),
        (lambda: VectorSpec(0), "dim must be an integer from 1 to 65536, got 0"),
        (lambda: VectorSpec(65_537), "dim must be an integer from 1 to 65536, got 65537"),
        (lambda: VectorSpec(True), "dim must be an integer from 1 to 65536, got True"),
        (lambda: VectorSpec(1.5), "dim must be an integer from 1 to 65536, got 1.5"),  # type: ignore[arg-type]
        (lambda: VectorSpec(1, "ip"), "metric must be cosine, dot or l2, got 'ip'"),  # type: ignore[arg-type]
        (lambda: IndexParams(m=0), "m must be an integer from 1 to 10000, got 0"),
        (lambda: IndexParams(ef=True), "ef must be an integer from 1 to 10000, got True"),
        (lambda: IndexParams(oversampling=0.5), "oversampling must be from 1 to 100, got 0.5"),
        (lambda: IndexParams(oversampling=float("nan")), "oversampling must be from 1 to 100, got nan"),
        (
            lambda: IndexParams(quantization="int4"),  # type: ignore[arg-type]
            "quantization must be none, scalar, product or binary, got 'int4'",
        ),
    ],
)
def test_refusals_of_schemas(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert str(caught.value) == message


_ALL = frozenset(get_args(Feature))


@pytest.mark.parametrize(
    ("schema", "feature", "message"),
    [
        (Schema({"a": VectorSpec(1)}), "dense", "this store has no dense vectors"),
        (Schema({"a": VectorSpec(1)}), "cosine", "this store has no cosine metric (vector 'a'); it has dot or l2"),
        (Schema({"a": VectorSpec(1, "l2")}), "l2", "this store has no l2 metric (vector 'a'); it has cosine or dot"),
        (Schema({"a": VectorSpec(1, multi=True)}), "multi_vector", "this store has no multi-vectors (vector 'a')"),
        (
            Schema({"a": VectorSpec(1), "b": VectorSpec(1)}),
            "named_vectors",
            "this store has no several named vectors",
        ),
        (Schema(sparse=("a",)), "sparse", "this store has no sparse vectors"),
        (Schema(text="a"), "text", "this store has no BM25 search"),
        (
            Schema(text="a", index=IndexParams(quantization="binary")),
            "binary",
            "this store has no binary quantization; it has scalar or product",
        ),
        (
            Schema(text="a", index=IndexParams.profile("latency")),
            "hnsw",
            "this store has no HNSW parameters to set (m, ef_construct, ef, a profile of them); leave `index` out",
        ),
    ],
)
def test_what_a_store_lacks(schema: Schema, feature: Feature, message: str) -> None:
    check_schema(schema, Capabilities(_ALL, frozenset()))
    with pytest.raises(UnsupportedError) as caught:
        check_schema(schema, Capabilities(_ALL - {feature}, frozenset()))
    assert str(caught.value) == message
    assert caught.value.context == {"feature": feature}
    assert not caught.value.retryable


def test_what_a_store_lacks_altogether_is_left_out() -> None:
    with pytest.raises(UnsupportedError, match=r"no scalar quantization, nor any other; leave `quantization` out$"):
        check_schema(
            Schema(text="a", index=IndexParams(quantization="scalar")), Capabilities(frozenset({"text"}), frozenset())
        )


# --- queries ---------------------------------------------------------------------------------------


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore.create(SCHEMA)


_A = Dense([1, 2])
_WRONG: Any = Fused((_A,))
_MAX: Any = "max"
_LIST: Any = [1, 2]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"k": 1}, "expected a Query, got dict"),
        (Query(_A, k=0), "k must be an integer from 1 to 10000, got 0"),
        (Query(_A, k=10_001), "k must be an integer from 1 to 10000, got 10001"),
        (Query(_A, k=True), "k must be an integer from 1 to 10000, got True"),
        (Query(_A, ef=0), "ef must be a positive integer, got 0"),
        (Query(_A, ef=True), "ef must be a positive integer, got True"),
        (Query(Dense([1, 2], "x")), "no vector named 'x'; the schema has ['dense', 'tokens']"),
        (Query(Dense([1])), "query vector 'dense': has dimension 1; the schema says 2"),
        (Query(Dense([0, 0])), "query vector 'dense': is zero, which has no direction; cosine needs a length above 0"),
        (
            Query(Dense([1, 2], "tokens")),
            "query vector 'tokens': has shape (2,); the schema says (t, 2) with t of 1 or more",
        ),
        (Query(Sparse(_sparse([1], [1.0]), "x")), "no sparse vector named 'x'; the schema has ['words']"),
        (Query(Sparse(_sparse([1, 1], [1.0, 1.0]), "words")), "query vector 'words': indices repeat"),
        (Query(Text(" ")), "the query text is empty"),
        (Query(Fused(())), "a fused query needs at least one part"),
        (Query(Fused((_A, _WRONG))), "find must be Dense, Sparse, Text or Fused, got Fused"),
        (Query(Fused((_A,), _MAX)), "fusion must be adaptive, normalized, rrf, distribution, got 'max'"),
        (Query(Fused((_A,), candidates=0)), "candidates must be an integer from 1 to 10000, got 0"),
        (Query(Fused((_A,), weights=(1.0, 2.0))), "1 parts need as many weights, got 2"),
        (Query(Fused((_A,), weights=(-1.0,))), "weights must be 0 or more and not all 0, got (-1.0,)"),
        (Query(Fused((_A,), weights=(0.0,))), "weights must be 0 or more and not all 0, got (0.0,)"),
        (Query(Fused((_A,), rrf_k=-1)), "rrf_k must be an integer of 0 or more, got -1"),
        (Query(_LIST), "find must be Dense, Sparse, Text or Fused, got list"),
    ],
)  # fmt: skip
def test_refusals_of_queries(store: MemoryStore, query: Any, message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        store.search(query)
    assert str(caught.value) == message


def test_a_text_query_needs_a_text_field() -> None:
    plain = MemoryStore.create(Schema({"dense": VectorSpec(2)}))
    with pytest.raises(InvalidQuery, match="the schema declares no text field to search"):
        plain.search(Query(Text("word")))


def test_a_checked_query_is_parsed(store: MemoryStore) -> None:
    written: Any = {"a": 1}
    checked = store.check_query(Query(Fused((Dense([1, 2]), Text("x"))), where=written))
    assert checked.where == filters.Comparison(("a",), "$eq", 1)
    assert isinstance(checked.find, Fused)
    first = checked.find.parts[0]
    assert isinstance(first, Dense)
    assert np.asarray(first.vector).dtype == np.float32


# --- what Store does before it calls the adapter ---------------------------------------------------


class Recording(MemoryStore):
    """Notes what reaches the adapter."""

    capabilities = replace(MemoryStore.capabilities, max_batch=3, filters=frozenset({"$eq", "$exists"}))

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.calls: list[tuple[str, Any]] = []

    def _upsert(self, records: list[Record]) -> None:
        self.calls.append(("upsert", [record.id for record in records]))
        super()._upsert(records)

    def _delete(self, ids: list[str]) -> None:
        self.calls.append(("delete", ids))
        super()._delete(ids)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        self.calls.append(("get", ids))
        return super()._get(ids, with_vectors)[::-1]

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        self.calls.append(("search", len(queries)))
        return super()._search_many(queries)


@pytest.fixture
def recording() -> Recording:
    store = Recording.create(Schema({"dense": VectorSpec(1, "dot")}))
    assert isinstance(store, Recording)
    return store


def _records(ids: str) -> Sequence[Record]:
    return [Record(record_id, {"dense": [i + 1]}) for i, record_id in enumerate(ids)]


def test_batches(recording: Recording) -> None:
    recording.upsert(_records("abcdefg"))
    assert recording.calls == [("upsert", ["a", "b", "c"]), ("upsert", ["d", "e", "f"]), ("upsert", ["g"])]


def test_equal_ids_reach_a_store_once(recording: Recording) -> None:
    recording.upsert(_records("abab"))
    assert recording.calls == [("upsert", ["a", "b"])]
    assert recording.get(["a"], with_vectors=True)[0].vectors["dense"].tolist() == [3.0]
    recording.delete(["a", "a", "x"])
    assert recording.calls[-1] == ("delete", ["a", "x"])


def test_a_bad_record_in_a_later_batch_stops_the_first(recording: Recording) -> None:
    with pytest.raises(InvalidRecord):
        recording.upsert([*_records("abcdefgh"), Record("bad")])
    assert recording.calls == []


def test_what_a_store_cannot_hold_in_a_later_batch_stops_the_first(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(record: Record) -> None:
        if record.id == "h":
            raise InvalidRecord("too large")

    companion = MemoryStore.create(companion_schema(Schema({"dense": VectorSpec(1)}, text="body")))
    monkeypatch.setattr(recording, "_check", check)
    for store in (recording, Retry(recording), Lexical(recording, companion)):
        with pytest.raises(InvalidRecord, match="too large"):
            store.upsert(_records("abcdefgh"))
    assert recording.calls == []
    assert companion.count() == 0


def test_what_a_later_batch_alone_finds_is_not_said_of_the_call(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert = recording._upsert

    def refuse(records: list[Record]) -> None:
        if "e" in {record.id for record in records}:
            raise InvalidRecord("too large")
        upsert(records)

    monkeypatch.setattr(recording, "_upsert", refuse)
    with pytest.raises(BatchFailed, match="3 of 7 records failed; the first is 'd': too large") as caught:
        recording.upsert(_records("abcdefg"))
    assert list(caught.value.failed) == ["d", "e", "f"]
    assert [record.id for record in recording.scan_all()] == ["a", "b", "c", "g"]
    with pytest.raises(InvalidRecord):  # here nothing was written
        recording.upsert(_records("eg"))


def test_a_store_may_answer_in_any_order(recording: Recording) -> None:
    recording.upsert(_records("abc"))
    assert [record.id for record in recording.get(["c", "a", "x", "b", "a"])] == ["c", "a", "b"]


def test_nothing_asked_is_nothing_called(recording: Recording) -> None:
    recording.upsert([])
    recording.delete([])
    assert recording.get([]) == []
    assert recording.search_many([]) == []
    assert recording.calls == []


def test_many_searches_are_one_call(recording: Recording) -> None:
    recording.upsert(_records("ab"))
    recording.search_many([Query(Dense([1])), Query(Dense([2]), k=1)])
    assert recording.calls[-1] == ("search", 2)


def test_a_filter_that_is_not_exact_raises(recording: Recording) -> None:
    recording.upsert(_records("ab"))
    with pytest.raises(UnsupportedError) as caught:
        recording.count({"$or": [{"a": 1}, {"$not": {"b.c": {"$gt": 1}}}]})
    assert str(caught.value).startswith("this store cannot evaluate $gt on 'b.c' exactly")
    assert caught.value.context == {"op": "$gt", "path": "b.c"}
    assert recording.count({"a": None}) == 2
    comparison = filters.Comparison(("a",), "$gt", 1)
    assert recording.count(filters.Loose(comparison)) == 0


def test_explained_parts_have_names_of_their_own() -> None:
    parts = (Dense([1], "d"), Text("x"), Dense([2], "d"), Sparse(_sparse([1], [1.0]), "s"), Text("y"))
    assert [part_name(part) for part in parts] == ["d", "lexical", "d", "s", "lexical"]
    rankings = [[("a", 1.0)], [("b", 2.0), ("a", 1.5), ("c", 1.0)], [("a", 3.0)], [], [("a", 4.0)]]
    told = explain_parts(Fused(parts), rankings, ["a", "b", "never found"])
    assert told == {
        "a": {
            "d": {"rank": 1, "score": 1.0},
            "lexical": {"rank": 2, "score": 1.5},
            "d#2": {"rank": 1, "score": 3.0},
            "lexical#2": {"rank": 1, "score": 4.0},
        },
        "b": {"lexical": {"rank": 1, "score": 2.0}},
        "never found": {},
    }


def test_a_record_of_the_write_path_reads_its_payload() -> None:
    record = Hit("a", payload={"document_id": "doc", "text": "words", "metadata": {"year": 2024}}, score=0.5)
    assert (record.document_id, record.text, record.metadata) == ("doc", "words", {"year": 2024})
    assert (Record("a").document_id, Record("a").text, Record("a").metadata) == (None, "", {})


def test_the_library_does_not_import_what_its_suite_needs() -> None:
    code = (
        "import sys, nearest, nearest.app, nearest.stores.memory, nearest.stores.edge, nearest.layers.residual; "
        "print(sorted({'pytest', 'hypothesis', 'snowballstemmer', 'qdrant_edge'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
