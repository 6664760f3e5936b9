"""Scans, counts, and deleting by condition: every record once, in a stable order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearest.contract import Page, Record, Store
from nearest.errors import InvalidFilter, InvalidQuery
from nearest.testing.base import Base, drop_where, found, plain, put, vector


class Scanning(Base):
    @staticmethod
    def _filled(store: Store, count: int = 25) -> dict[str, dict[str, Any]]:
        payloads = {f"r{i:03}": {"n": i, "third": i % 3 == 0} for i in range(count)}
        put(store, [plain(payload["n"], payload) for payload in payloads.values()])
        return payloads

    @staticmethod
    def _pages(store: Store, **arguments: Any) -> list[Page]:
        pages = [store.scan(**arguments)]
        while pages[-1].cursor is not None:
            assert len(pages) < 100, "a scan that does not end"
            pages.append(store.scan(pages[-1].cursor, **arguments))
        return pages

    def test_scan_visits_every_record_once(self, store: Store) -> None:
        payloads = self._filled(store)
        for limit in (1, 7, 24, 25, 26, 1000):
            pages = self._pages(store, limit=limit)
            records = [record for page in pages for record in page.records]
            assert all(len(page.records) <= limit for page in pages)
            assert len(records) == len(payloads)
            assert {record.id: dict(record.payload) for record in records} == payloads

    def test_scan_is_stable_and_resumes_from_its_cursor(self, store: Store) -> None:
        self._filled(store)
        first = self._pages(store, limit=4)
        again = self._pages(store, limit=4)
        assert [[r.id for r in page.records] for page in first] == [[r.id for r in page.records] for page in again]
        middle = store.scan(first[2].cursor, limit=4)
        assert [r.id for r in middle.records] == [r.id for r in first[3].records]
        whole = [r.id for r in store.scan(limit=1000).records]
        assert whole == [r.id for page in first for r in page.records]

    def test_scan_with_a_condition(self, store: Store) -> None:
        payloads = self._filled(store)
        wanted = {record_id for record_id, payload in payloads.items() if payload["third"]}
        for limit in (1, 4, 1000):
            records = [r for page in self._pages(store, limit=limit, where={"third": True}) for r in page.records]
            assert len(records) == len(wanted)
            assert {r.id for r in records} == wanted
        assert self._pages(store, where={"n": -1})[-1].records == []

    def test_scan_of_nothing(self, store: Store) -> None:
        assert store.scan() == Page([], None)
        assert list(store.scan_all()) == []

    def test_scan_gives_vectors_when_asked(self, store: Store) -> None:
        put(store, [plain(i) for i in range(3)])
        assert all(record.vectors == {} for record in store.scan().records)
        for record in store.scan(with_vectors=True).records:
            got, want = record.vectors["dense"], vector(int(record.id[1:]))
            scale = np.linalg.norm(got) / np.linalg.norm(want)
            np.testing.assert_allclose(got, want * scale, rtol=1e-5)
            assert got.dtype == np.float32

    def test_scan_all_goes_over_many_pages(self, store: Store) -> None:
        put(store, [plain(i) for i in range(2005)])
        ids = [record.id for record in store.scan_all()]
        assert len(ids) == 2005
        assert set(ids) == {f"r{i:03}" for i in range(2005)}

    def test_a_bad_limit_is_refused(self, store: Store) -> None:
        bad: list[Any] = [0, -1, True, 1.5, "1"]
        for limit in bad:
            with pytest.raises(InvalidQuery, match="limit"):
                store.scan(limit=limit)

    def test_count(self, store: Store) -> None:
        assert store.count() == 0
        payloads = self._filled(store)
        assert store.count() == len(payloads)
        assert store.count({"third": True}) == 9
        assert store.count({"n": {"$gte": 20}}) == 5
        assert store.count({"n": 99}) == 0

    def test_delete_where(self, store: Store) -> None:
        payloads = self._filled(store)
        drop_where(store, {"third": True})
        left = {record_id for record_id, payload in payloads.items() if not payload["third"]}
        assert {record.id for record in store.scan_all()} == left
        assert found(store) == left
        drop_where(store, {"n": 9999})
        assert store.count() == len(left)
        drop_where(store, {"n": {"$exists": True}})
        assert store.count() == 0

    def test_delete_where_needs_a_condition(self, store: Store) -> None:
        put(store, [plain(0)])
        nothing: Any = None
        with pytest.raises(InvalidQuery, match="condition"):
            store.delete_where(nothing)
        with pytest.raises(InvalidFilter, match="empty"):
            store.delete_where({})
        assert store.count() == 1

    def test_records_without_payload_are_counted_and_scanned(self, store: Store) -> None:
        put(store, [Record("a", {"dense": vector(0)}), Record("b", {"dense": vector(1)}, {"n": None})])
        assert store.count({"n": None}) == 2
        assert len(store.scan(where={"n": {"$exists": False}}).records) == 2
