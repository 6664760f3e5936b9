"""Records: ids, vectors and payloads in and out, what is refused, upsert, delete and get."""

from __future__ import annotations

import copy
import unicodedata
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from nearest.contract import Dense, Query, Record, Schema, SparseVector, Store, VectorSpec
from nearest.errors import InvalidQuery, InvalidRecord
from nearest.testing.base import DIM, Base, Make, drop, drop_where, found, needs, plain, put, same_json, vector

UUID = "5f0c2a1e-8b1d-4a57-9d3e-0a4a8b1c2d3e"
IDS = [
    "a", "A", " a", "a ", "a\tb", "a\nb", "0", "00", "1", "-1", "1.0", "true", "null", "None", "{}", "'; --", '"', "\\",
    "a/b", "a?b=c", "%20", "💡", "漢字", "\u202eright to left", "\ufeff", "\U0010ffff",
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "ß", "ss", "İ", "i",
    UUID, UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", "x" * 512, "💡" * 512,
]  # fmt: skip

PAYLOAD: dict[str, Any] = {
    "text": "Grüße, 漢字 💡 \u202e \\ \" ' \n\t",
    "empty": "",
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus": -1,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "beyond float64": 2**53 + 1,
    "float": 0.1,
    "whole float": 1.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "long floats": [0.9097462559682401, -0.9827854760376531, 1e-7, 123456789.12345679],
    "list": [],
    "nulls": [None, None],
    "mixed": [1, "1", 1.0, True, None, [], {}, [[1], [2, [3]]]],
    "object": {},
    "nested": {"a": {"b": {"c": [{"d": None}, {"d": [1]}]}}},
    "": "the empty key",
    "a.b": 1,
    "a": {"b": 2},
    "key with \"quotes' and [0] $brackets \\ 💡": 1,
    "$eq": 1,
}


class Records(Base):
    # Ids.

    def test_ids_come_back_as_given(self, store: Store) -> None:
        put(store, [plain(i, {"id": record_id}, record_id) for i, record_id in enumerate(IDS)])
        assert store.count() == len(IDS)
        assert [record.id for record in store.get(IDS)] == IDS
        assert all(record.payload == {"id": record.id} for record in store.get(IDS))
        assert found(store) == set(IDS)
        assert {record.id for record in store.scan_all()} == set(IDS)

    def test_an_id_may_hold_a_null_character(self, store: Store) -> None:
        put(store, [plain(0, record_id="a\x00b"), plain(1, record_id="a"), plain(2, record_id="a\x00")])
        assert found(store) == {"a\x00b", "a", "a\x00"}
        drop(store, ["a\x00"])
        assert found(store) == {"a\x00b", "a"}

    def test_ids_that_differ_little_are_different_records(self, store: Store) -> None:
        put(store, [plain(i, {"n": i}, record_id) for i, record_id in enumerate(IDS)])
        for i, record_id in enumerate(IDS):
            put(store, [plain(i, {"n": -i}, record_id)])
            drop(store, [record_id])
            assert store.get([record_id]) == []
            assert store.count() == len(IDS) - i - 1

    def test_bad_ids_are_refused(self, store: Store) -> None:
        put(store, [plain(0)])
        bad: list[Any] = ["", "x" * 513, 1, None, b"a", "\ud800"]
        for value in bad:
            with pytest.raises(InvalidRecord, match="id"):
                store.upsert([plain(1), Record(value, {"dense": vector(2)})])
            with pytest.raises(InvalidQuery, match="id"):
                store.get([value])
            with pytest.raises(InvalidQuery, match="id"):
                store.delete(["r000", value])
            assert store.count() == 1

    def test_one_string_is_not_a_list_of_ids(self, store: Store) -> None:
        put(store, [plain(0, record_id="a"), plain(1, record_id="b")])
        with pytest.raises(InvalidQuery, match="list"):
            store.get("ab")
        with pytest.raises(InvalidQuery, match="list"):
            store.delete("ab")
        assert store.count() == 2

    # Vectors.

    def test_vectors_come_back(self, build: Make) -> None:
        """Under cosine at unit length, else as they were; float32."""
        for metric in self.metrics:
            store = build(self.schema(metric=metric))
            given = {f"r{i}": vector(i) * (10.0 ** (i - 3)) for i in range(7)}
            put(store, [Record(record_id, {"dense": value}) for record_id, value in given.items()])
            records = store.get(given, with_vectors=True)
            assert [record.id for record in records] == list(given)
            for record in records:
                got, want = record.vectors["dense"], given[record.id].astype(np.float64)
                if metric == "cosine":
                    want = want / np.linalg.norm(want)
                assert isinstance(got, np.ndarray)
                assert got.dtype == np.float32
                assert got.shape == (DIM,)
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)

    def test_vectors_come_only_when_asked_for(self, store: Store) -> None:
        put(store, [plain(0)])
        assert store.get(["r000"])[0].vectors == {}
        assert set(store.get(["r000"], with_vectors=True)[0].vectors) == {"dense"}

    def test_every_form_of_numbers_is_taken(self, store: Store) -> None:
        numbers = [0.5, -2.0, 1.0, 3.0]
        whole = [1, -2, 3, 4]
        wide = np.repeat(np.array(numbers), 2)
        forms: list[Any] = [
            numbers, tuple(numbers), np.array(numbers), np.array(numbers, np.float32), np.array(numbers, np.float16),
            np.array(numbers, ">f8"), wide[::2], whole, np.array(whole), np.array(whole, np.int8),
        ]  # fmt: skip
        put(store, [Record(f"r{i}", {"dense": value}) for i, value in enumerate(forms)])
        for i, value in enumerate(forms):
            got = store.get([f"r{i}"], with_vectors=True)[0].vectors["dense"]
            want = np.asarray(value, np.float64)
            if self.metric == "cosine":
                want = want / np.linalg.norm(want)
            np.testing.assert_allclose(got, want, rtol=1e-5)

    @needs("sparse")
    def test_sparse_vectors_come_back(self, build: Make) -> None:
        store = build(self.schema(sparse=("words",)))
        given = SparseVector(np.array([7, 0, 2**32 - 1, 12]), np.array([0.5, -1.5, 2.0, 1e-3]))
        put(store, [Record("a", {"dense": vector(0), "words": given}), plain(1)])
        got = store.get(["a"], with_vectors=True)[0].vectors["words"]
        assert isinstance(got, SparseVector)
        assert got.indices.dtype == np.uint32
        assert got.values.dtype == np.float32
        pairs = dict(zip(got.indices.tolist(), got.values.tolist(), strict=True))
        assert pairs == pytest.approx({0: -1.5, 7: 0.5, 12: 1e-3, 2**32 - 1: 2.0})
        got.values[:] = 0
        assert store.get(["a"], with_vectors=True)[0].vectors["words"].values.all()
        assert set(store.get(["r001"], with_vectors=True)[0].vectors) == {"dense"}

    @needs("multi_vector")
    def test_multi_vectors_come_back(self, build: Make) -> None:
        store = build(Schema(vectors={"tokens": VectorSpec(DIM, self.metric, multi=True)}))
        given = {f"r{t}": np.stack([vector(t, i) for i in range(t)]) for t in (1, 2, 7)}
        put(store, [Record(record_id, {"tokens": value}) for record_id, value in given.items()])
        for record in store.get(given, with_vectors=True):
            want = given[record.id].astype(np.float64)
            if self.metric == "cosine":
                want = want / np.linalg.norm(want, axis=1, keepdims=True)
            assert record.vectors["tokens"].dtype == np.float32
            np.testing.assert_allclose(record.vectors["tokens"], want, rtol=1e-5, atol=1e-7)

    def test_bad_vectors_are_refused_before_anything_is_written(self, store: Store) -> None:
        put(store, [plain(0)])
        bad: list[Any] = [
            [1, 2, 3], [1, 2, 3, 4, 5], [], 1.0, "1234", None, [[1, 2, 3, 4]], ["a", "b", "c", "d"], [1, 2, 3, None],
            [1, 2, 3, np.nan], [1, 2, np.inf, 4], [1, -np.inf, 3, 4], [1e39, 0, 0, 0],
        ]  # fmt: skip
        for value in bad:
            self._refused(store, Record("bad", {"dense": value}), "dense")
        self._refused(store, Record("bad", {}), "dense")
        self._refused(store, Record("bad", {"dense": vector(1), "other": vector(2)}), "other")

    def test_a_zero_vector_is_refused_under_cosine_alone(self, store: Store) -> None:
        put(store, [plain(0)])
        if self.metric == "cosine":
            self._refused(store, Record("bad", {"dense": [0, 0, 0, 0]}), "zero")
        else:
            put(store, [Record("zero", {"dense": [0, 0, 0, 0]})])
            assert store.count() == 2

    @needs("sparse")
    def test_bad_sparse_vectors_are_refused(self, build: Make) -> None:
        store = build(self.schema(sparse=("words",)))
        put(store, [plain(0)])
        bad: list[Any] = [
            SparseVector(np.array([1, 1]), np.array([1.0, 2.0])),
            SparseVector(np.array([1, 2]), np.array([1.0])),
            SparseVector(np.array([-1]), np.array([1.0])),
            SparseVector(np.array([2**32]), np.array([1.0])),
            SparseVector(np.array([0.5]), np.array([1.0])),
            SparseVector(np.array([1]), np.array([np.nan])),
            {1: 1.0},
            [1.0, 2.0],
        ]
        for value in bad:
            self._refused(store, Record("bad", {"dense": vector(1), "words": value}), "words")

    @needs("multi_vector")
    def test_bad_multi_vectors_are_refused(self, build: Make) -> None:
        store = build(Schema(vectors={"tokens": VectorSpec(DIM, self.metric, multi=True)}))
        put(store, [Record("r000", {"tokens": [vector(0)]})])
        bad: list[Any] = [
            vector(1),
            np.zeros((0, DIM)),
            np.ones((2, DIM + 1)),
            [vector(1), [np.nan] * DIM],
            [[vector(1)]],
        ]
        for value in bad:
            self._refused(store, Record("bad", {"tokens": value}), "tokens")

    # Payloads.

    def test_payloads_come_back_exactly(self, store: Store) -> None:
        put(store, [plain(0, PAYLOAD), plain(1)])
        got = store.get(["r000", "r001"])
        assert same_json(dict(got[0].payload), PAYLOAD)
        assert got[1].payload == {}
        for key, value in PAYLOAD.items():
            put(store, [plain(2, {key: value})])
            assert same_json(dict(store.get(["r002"])[0].payload), {key: value})

    def test_a_payload_may_hold_a_null_character(self, store: Store) -> None:
        put(store, [plain(0, {"a": "x\x00y", "k\x00": 1})])
        assert store.get(["r000"])[0].payload == {"a": "x\x00y", "k\x00": 1}

    def test_tuples_become_lists(self, store: Store) -> None:
        put(store, [plain(0, {"a": (1, ("b",))})])
        assert same_json(dict(store.get(["r000"])[0].payload), {"a": [1, ["b"]]})

    def test_what_json_cannot_hold_is_refused(self, store: Store) -> None:
        put(store, [plain(0)])
        deep: dict[str, Any] = {}
        for _ in range(100):
            deep = {"a": deep}
        bad: list[Any] = [
            {"a": float("nan")}, {"a": float("inf")}, {"a": 2**63}, {"a": -(2**63) - 1}, {"a": datetime(2024, 5, 31)},
            {"a": b"x"}, {"a": {1, 2}}, {"a": object()}, {1: "a"}, {"a": {1: "b"}}, {"a": "\ud800"}, {"\ud800": 1},
            {"a": np.float32(1)}, {"a": np.ones(2)}, {"a": [1, [float("nan")]]}, deep, [1], None, "x",
        ]  # fmt: skip
        for payload in bad:
            self._refused(store, Record("bad", {"dense": vector(1)}, payload), "payload")

    def test_a_declared_field_of_another_kind_is_refused(self, build: Make) -> None:
        store = build(
            self.schema(
                fields={"k": "keyword", "i": "integer", "f": "float", "b": "bool", "d": "datetime", "o.deep": "integer"}
            )
        )
        put(store, [plain(0)])
        bad: dict[str, list[Any]] = {
            "k": [1, True, {"a": 1}, ["a", 1], [["a"]]],
            "i": ["1", 1.0, True, {}, [1, "1"], [None, 1.5]],
            "f": ["1.5", True, [1.5, "x"], {}],
            "b": ["true", 0, 1, 1.0, [True, 1]],
            "d": ["yesterday", "", 1717113600, "2024-13-01", "2024-05-31T12:00:00", ["2024-05-31", "x"], "20240531"],
            "o": [{"deep": "1"}, {"deep": [1, "a"]}],
        }
        for name, values in bad.items():
            for value in values:
                self._refused(store, plain(1, {name: value}, "bad"), rf"payload\.{name}")

    def test_a_declared_field_takes_its_kind_lists_of_it_and_null(self, build: Make) -> None:
        store = build(
            self.schema(
                fields={"k": "keyword", "i": "integer", "f": "float", "b": "bool", "d": "datetime", "o.x": "float"}
            )
        )
        good: list[dict[str, Any]] = [
            {}, {"k": None}, {"k": []}, {"k": "x"}, {"k": ["x", "y", None]}, {"i": 1}, {"i": [2**63 - 1, -(2**63)]},
            {"f": 1.5}, {"f": 1}, {"f": [1, 0.5]}, {"b": True}, {"b": [True, False]}, {"d": "2024-05-31"},
            {"d": ["2024-05-31T12:00:00Z", "1969-12-31T23:59:59.999999-12:00", None]}, {"o": {"x": 1}}, {"o": 5},
            {"undeclared": {"k": 1}},
        ]  # fmt: skip
        put(store, [plain(i, payload) for i, payload in enumerate(good)])
        got = [dict(record.payload) for record in store.get([f"r{i:03}" for i in range(len(good))])]
        assert same_json(got, good)

    def test_what_is_stored_is_no_callers_object(self, store: Store) -> None:
        payload = {"list": [1, 2], "object": {"a": 1}}
        given = vector(0)
        put(store, [Record("a", {"dense": given}, payload)])
        before = store.get(["a"], with_vectors=True)[0]
        kept, length = copy.deepcopy(dict(before.payload)), before.vectors["dense"].copy()
        payload["list"].append(3)  # type: ignore[attr-defined]
        given[:] = 0
        before.payload["object"]["a"] = 2
        before.vectors["dense"][:] = 0
        for record in (
            store.search(Query(Dense(vector(1)), with_vectors=True))[0],
            store.scan(with_vectors=True).records[0],
        ):
            record.payload["list"].clear()
            record.vectors["dense"][:] = 0
        after = store.get(["a"], with_vectors=True)[0]
        assert same_json(dict(after.payload), kept)
        np.testing.assert_array_equal(after.vectors["dense"], length)

    # Upsert, delete, get.

    def test_upsert_replaces_the_whole_record(self, store: Store) -> None:
        put(store, [plain(0, {"old": 1, "both": {"a": 1, "b": 2}}), plain(1)])
        put(store, [Record("r000", {"dense": vector(7)}, {"both": {"a": 3}})])
        put(store, [plain(1, {})])
        one, other = store.get(["r000", "r001"], with_vectors=True)
        assert one.payload == {"both": {"a": 3}}
        assert other.payload == {}
        direction = one.vectors["dense"] / np.linalg.norm(one.vectors["dense"])
        np.testing.assert_allclose(direction, vector(7) / np.linalg.norm(vector(7)), rtol=1e-5)
        assert store.count() == 2
        assert found(store, {"old": {"$exists": True}}) == set()

    @needs("sparse")
    def test_upsert_removes_a_sparse_vector_that_is_no_longer_given(self, build: Make) -> None:
        store = build(self.schema(sparse=("words",)))
        words = SparseVector(np.array([3]), np.array([1.0]))
        put(store, [Record("a", {"dense": vector(0), "words": words})])
        put(store, [Record("a", {"dense": vector(0)})])
        assert set(store.get(["a"], with_vectors=True)[0].vectors) == {"dense"}

    def test_repeating_a_write_changes_nothing(self, store: Store) -> None:
        records = [plain(i, {"n": i, "even": i % 2 == 0}) for i in range(6)]
        for _ in range(2):
            put(store, records)
            assert store.count() == 6
        state = [(record.id, record.payload) for record in store.scan_all()]
        put(store, [plain(i, {"n": i, "even": i % 2 == 0}) for i in range(6)])
        assert [(record.id, record.payload) for record in store.scan_all()] == state
        for _ in range(2):
            drop(store, ["r001", "nobody"])
            assert found(store) == {"r000", "r002", "r003", "r004", "r005"}
        for _ in range(2):
            drop_where(store, {"even": True})
            assert found(store) == {"r003", "r005"}

    def test_the_last_of_two_equal_ids_wins(self, store: Store) -> None:
        put(store, [plain(0, {"n": 1}), plain(1), plain(0, {"n": 2}), plain(0, {"m": 3})])
        assert store.count() == 2
        assert store.get(["r000"])[0].payload == {"m": 3}

    def test_nothing_may_be_written_deleted_or_got(self, store: Store) -> None:
        store.upsert([])
        store.delete([])
        assert store.get([]) == []
        put(store, (plain(i) for i in range(3)))
        store.upsert(iter(()))
        store.delete(iter(()))
        assert store.count() == 3

    def test_delete_of_an_unknown_id_does_nothing(self, store: Store) -> None:
        put(store, [plain(0), plain(1)])
        drop(store, ["unknown"])
        assert store.count() == 2
        drop(store, ["unknown", "r000", "r000"])
        assert [record.id for record in store.scan_all()] == ["r001"]

    def test_get_keeps_the_order_and_leaves_out_what_is_not_there(self, store: Store) -> None:
        put(store, [plain(i) for i in range(5)])
        got = [record.id for record in store.get(["r003", "nobody", "r000", "r004", "r001"])]
        assert got == ["r003", "r000", "r004", "r001"]
        assert store.get(["nobody"]) == []

    def test_a_deleted_record_can_be_written_again(self, store: Store) -> None:
        put(store, [plain(0, {"n": 1})])
        drop(store, ["r000"])
        put(store, [plain(0, {"m": 2})])
        assert store.get(["r000"])[0].payload == {"m": 2}
        assert found(store) == {"r000"}

    def test_more_records_than_one_batch_takes(self, store: Store) -> None:
        size = min(self.capabilities.max_batch, 20_000) + 1
        directions = np.random.default_rng(0).normal(size=(size, DIM))
        put(store, [Record(str(i), {"dense": directions[i]}, {"n": i}) for i in range(size)])
        assert store.count() == size
        assert store.count({"n": {"$gte": size - 2}}) == 2
        assert [record.payload for record in store.get([str(size - 1), "0"])] == [{"n": size - 1}, {"n": 0}]

    def _refused(self, store: Store, record: Record, naming: str) -> None:
        """In the middle of a batch, and nothing of the batch is written."""
        before = store.count()
        with pytest.raises(InvalidRecord, match=naming):
            store.upsert([plain(901), record, plain(902)])
        assert store.count() == before
        assert store.get(["bad", "r901", "r902"]) == []
