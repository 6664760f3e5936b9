"""The conformance suite itself: it finds what is broken, and holds gaps to their word.

Stores that are broken in one way each go through it in a process of their own; for every one the tests
that must fail are named.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from nearest.stores.memory import MemoryStore
from nearest.testing.base import Base, needs

_HEAD = """
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import Phase, settings

from nearest import filters
from nearest.contract import *
from nearest.stores import memory
from nearest.stores.memory import MemoryStore, _Collection
from nearest.testing import StoreSuite

# One failure is enough here, the smallest is not worth its time, and it must be found in every run.
settings.register_profile("brief", derandomize=True, phases=[Phase.generate])
settings.load_profile("brief")


class Broken(StoreSuite):
    @pytest.fixture
    def make(self):
        return self.module.STORE.create
"""

# name: (the body of a MemoryStore subclass, the tests of the suite that must fail)
_BROKEN = {
    "KIsOneLess": (
        """
    def _search_many(self, queries):
        return [hits[: max(1, query.k - 1)] for query, hits in zip(queries, super()._search_many(queries))]
""",
        ["test_dense_scores", "test_k_larger_than_the_collection_finds_all"],
    ),
    "TiesInAnyOrder": (
        """
    def _search_many(self, queries):
        answers = super()._search_many(queries)
        return [sorted(hits[::-1], key=lambda hit: -hit.score) for hits in answers]
""",
        ["test_ties_are_in_order_of_id", "test_equal_fused_scores_are_in_order_of_id"],
    ),
    "SquaredDistance": (
        """
    def _search_many(self, queries):
        answers = super()._search_many(queries)
        if self.schema.vectors["dense"].metric != "l2":
            return answers
        return [[replace(hit, score=-(hit.score**2)) for hit in hits] for hits in answers]
""",
        ["test_dense_scores", "test_scores_of_equal_and_opposite_vectors"],
    ),
    "NegativeScoresAreCut": (
        """
    def _search_many(self, queries):
        return [[hit for hit in hits if hit.score >= 0] for hits in super()._search_many(queries)]
""",
        ["test_dense_scores", "test_sparse_scores"],
    ),
    "UpsertMerges": (
        """
    def _upsert(self, records):
        old = {record.id: record.payload for record in self._get([r.id for r in records], False)}
        super()._upsert([replace(r, payload={**old.get(r.id, {}), **r.payload}) for r in records])
""",
        ["test_upsert_replaces_the_whole_record", "test_sequences_of_calls"],
    ),
    "DeleteForgetsText": (
        """
    def _delete(self, ids):
        for i in ids:
            for record in self._get([i], True):
                super()._upsert([Record("gone", record.vectors, {"body": record.payload.get("body")})])
        super()._delete(ids)
""",
        ["test_texts_follow_the_writes", "test_delete_of_an_unknown_id_does_nothing"],
    ),
    "IdsAreLowerCase": (
        """
    def _upsert(self, records):
        super()._upsert(list({r.id.lower(): replace(r, id=r.id.lower()) for r in records}.values()))
""",
        ["test_ids_come_back_as_given", "test_sequences_of_calls"],
    ),
    "NeNeedsAValue": (
        """
    def _count(self, where):
        return super()._count(self.worse(where))

    def _search_many(self, queries):
        return super()._search_many([replace(query, where=self.worse(query.where)) for query in queries])

    def worse(self, where):
        match where:
            case filters.Not(filters.Comparison(path, "$eq", _)):
                return filters.And((where, filters.Comparison(path, "$exists", True)))
            case filters.Not(part):
                return filters.Not(self.worse(part))
            case filters.And(parts) | filters.Or(parts):
                return type(where)(tuple(map(self.worse, parts)))
        return where
""",
        ["test_filter_table[ne]", "test_generated_filters"],
    ),
    "TypesMix": (
        """
    def _count(self, where):
        return super()._count(self.worse(where))

    def _search_many(self, queries):
        return super()._search_many([replace(query, where=self.worse(query.where)) for query in queries])

    def worse(self, where):
        match where:
            case filters.Comparison(path, "$eq", value) if isinstance(value, bool):
                return filters.Or((where, filters.Comparison(path, "$eq", int(value))))
        return where
""",
        ["test_filter_table[eq-boolean]"],
    ),
    "ConditionsAreDropped": (
        """
    def _search_many(self, queries):
        return super()._search_many([replace(query, where=None) for query in queries])
""",
        ["test_a_search_under_a_condition", "test_a_condition_holds_for_texts_too", "test_generated_filters"],
    ),
    "ScanSkipsAtThePage": (
        """
    def _scan(self, cursor, limit, where, with_vectors):
        page = super()._scan(cursor, limit + 1, where, with_vectors)
        return Page(page.records[:limit], page.cursor)
""",
        ["test_scan_visits_every_record_once", "test_scan_all_goes_over_many_pages"],
    ),
    "NumbersAreFloats": (
        """
    def _get(self, ids, with_vectors):
        def worse(payload):
            return {k: float(v) if type(v) is int else v for k, v in payload.items()}
        return [replace(r, payload=worse(r.payload)) for r in super()._get(ids, with_vectors)]
""",
        ["test_payloads_come_back_exactly"],
    ),
    "VectorsOfTheCaller": (
        """
    def _upsert(self, records):
        super()._upsert(records)
        self.given = {**getattr(self, "given", {}), **{r.id: r.vectors for r in records}}

    def _get(self, ids, with_vectors):
        return [replace(r, vectors=self.given[r.id] if with_vectors else {}) for r in super()._get(ids, with_vectors)]
""",
        ["test_what_is_stored_is_no_callers_object"],
    ),
    "PartsAreCutBeforeFusion": (
        """
    def _search_many(self, queries):
        fused = [replace(q, find=replace(q.find, candidates=q.k)) if isinstance(q.find, Fused) else q for q in queries]
        return super()._search_many(fused)
""",
        ["test_fused_scores[normalized]", "test_fused_scores[rrf]"],
    ),
    "OneThreadAlone": (
        """
    def _upsert(self, records):
        self.owner = getattr(self, "owner", threading.get_ident())
        assert self.owner == threading.get_ident(), "opened in another thread"
        super()._upsert(records)
""",
        ["test_threads_write_and_search_at_once"],
    ),
    "ClosedAndStillThere": (
        """
    def close(self):
        pass
""",
        ["test_a_closed_store_refuses"],
    ),
    "SaysItIsQuantized": (
        """
    capabilities = replace(
        MemoryStore.capabilities, features=(MemoryStore.capabilities.features | {"scalar"}) - {"dot"}
    )

    @classmethod
    def create(cls, schema):
        if schema.index.quantization != "none":
            raise RuntimeError("no")
        return cls(_Collection(schema))
""",
        ["test_feature[scalar]", "test_feature[dot]", "test_rescored_quantization_keeps_the_order[scalar]"],
    ),
    "LooseSupport": (
        """
    capabilities = replace(MemoryStore.capabilities, filters=frozenset({"$eq"}))

    def check_filter(self, condition):
        pass
""",
        ["test_a_bare_store_runs_a_condition_exactly_or_raises", "test_generated_filters"],
    ),
}


def _run(folder: Path, source: str, *names: str) -> tuple[dict[str, str], str]:
    """The outcome of each test, by `Class::test`, and all that was said."""
    (folder / "test_broken.py").write_text(_HEAD + source)
    (folder / "pytest.ini").write_text("[pytest]\nxfail_strict = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *(f"test_broken.py::{name}" for name in names)], cwd=folder, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    return {name: outcome for outcome, name in re.findall(r"^([A-Z]+) test_broken\.py::(\S+)", said, re.M)}, said


def test_what_is_broken_is_found(tmp_path: Path) -> None:
    source, names = [], []
    for name, (body, failing) in _BROKEN.items():
        source.append(
            f"class {name}Store(MemoryStore):{body}\n\nclass Test{name}(Broken):\n"
            f"    module = SimpleNamespace(STORE={name}Store, KNOWN_GAPS=())\n\n"
        )
        names += [f"Test{name}::{test}" for test in failing]
    outcomes, said = _run(tmp_path, "from dataclasses import replace\n" + "\n".join(source), *names)
    missed = [name for name in names if outcomes.get(name) != "FAILED"]
    assert missed == [], said[-3000:]


def test_the_unbroken_store_passes_the_same_tests(tmp_path: Path) -> None:
    """Or the test above would be satisfied by a suite that always fails."""
    tests = sorted({test for _, failing in _BROKEN.values() for test in failing})
    source = "class TestWhole(Broken):\n    module = memory\n"
    outcomes, said = _run(tmp_path, source, *(f"TestWhole::{test}" for test in tests))
    assert outcomes == {f"TestWhole::{test}": "PASSED" for test in tests}, said[-3000:]


_GAPS = """
class ShortStore(MemoryStore):
    def _search_many(self, queries):
        return [hits[:3] for hits in super()._search_many(queries)]

class TestShort(Broken):
    module = SimpleNamespace(STORE=ShortStore, KNOWN_GAPS=(
        Gap("test_k_larger_than_the_collection_finds_all", "ours", "it finds three"),
        Gap("test_a_bad_k_is_refused", "never", "this one holds"),
        Gap("test_filter_table[in]", "upstream", "two of its hits are missing"),
    ))

class TestTypo(Broken):
    module = SimpleNamespace(STORE=MemoryStore, KNOWN_GAPS=(
        Gap("test_that_never_was", "ours", ""), Gap("test_filter_table[inn]", "ours", ""),
    ))

class TestNeeds(Broken):
    module = SimpleNamespace(STORE=MemoryStore, KNOWN_GAPS=(Gap("test_opening_again_finds_everything", "ours", ""),))
"""


def test_gaps_are_strict_expected_failures(tmp_path: Path) -> None:
    tests = ["test_k_larger_than_the_collection_finds_all", "test_a_bad_k_is_refused", "test_filter_table"]
    names = [f"TestShort::{test}" for test in [*tests, "test_every_gap_names_a_test"]]
    names += [f"{suite}::test_every_gap_names_a_test" for suite in ("TestTypo", "TestNeeds")]
    outcomes, said = _run(tmp_path, _GAPS, *names)
    assert outcomes["TestShort::test_k_larger_than_the_collection_finds_all"] == "XFAIL", said
    assert outcomes["TestShort::test_filter_table[in]"] == "XFAIL", said
    assert outcomes["TestShort::test_filter_table[nin]"] == "FAILED", said
    assert outcomes["TestShort::test_a_bad_k_is_refused"] == "FAILED", said
    assert "[XPASS(strict)] never: this one holds" in said
    assert outcomes["TestShort::test_every_gap_names_a_test"] == "PASSED", said
    assert outcomes["TestTypo::test_every_gap_names_a_test"] == "FAILED", said
    assert outcomes["TestNeeds::test_every_gap_names_a_test"] == "FAILED", said


def test_tests_are_chosen_by_what_is_declared() -> None:
    class Part(Base):
        @needs("text", "durable")
        def test_both(self) -> None: ...

        @needs("text")
        def test_text(self) -> None: ...

    class Suite(Part):
        module: object = type("module", (), {"STORE": MemoryStore})  # type: ignore[assignment]

    chosen = {name for name in ("test_both", "test_text") if callable(getattr(Suite, name))}
    assert chosen == {"test_text"}
    assert callable(Part.test_both)
