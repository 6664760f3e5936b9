"""The FAISS store: the conformance suite, and what is its own: recall under conditions, kills, indexes on disk."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import errors, filters, stores
from nearest.contract import Dense, IndexParams, Metric, Query, Record, Schema, Store, VectorSpec
from nearest.stores import _sqlite, faiss
from nearest.testing import StoreSuite
from nearest.testing.base import plain, true_scores, vector
from nearest.testing.searching import Searching
from nearest.testing.sequences import Sequences
from tests.stores import faiss_writer
from tests.stores.by_url import ByURL

SCHEMA = Schema({"dense": VectorSpec(4)})


class Folders(ByURL):
    """Each collection in a folder of its own."""

    module = faiss

    @pytest.fixture
    def new_url(self, tmp_path: Path) -> Callable[[Schema], str]:
        numbers = itertools.count()
        return lambda _: f"faiss:{tmp_path}/{next(numbers)}"


class TestFaiss(Folders, StoreSuite):
    pass


class Indexed:
    """Everything is in an index at once, and no search is exact unless it must be."""

    @pytest.fixture(autouse=True)
    def _always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        always_indexed(monkeypatch)
        upsert = faiss.FaissStore._upsert

        def then_optimize(store: faiss.FaissStore, records: list[Record]) -> None:
            upsert(store, records)
            store.optimize()

        monkeypatch.setattr(faiss.FaissStore, "_upsert", then_optimize)


class TestFaissIndexed(Indexed, Folders, Searching, Sequences):
    pass


class TestFaissBinary(Indexed, Folders, Sequences):
    """By the signs of the numbers, with candidates enough for the few records there are."""

    @pytest.fixture(params=["BFlat", "BHNSW32"])
    def new_url(self, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Schema], str]:
        numbers = itertools.count()
        return lambda _: f"faiss:{tmp_path}/{next(numbers)}?index={request.param}"

    def schema(self, **given: Any) -> Schema:
        return super().schema(**given, index=IndexParams(oversampling=50))


def always_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "_INDEX_FROM", 1)
    monkeypatch.setattr(faiss, "_EXACT_ROWS", 0)
    monkeypatch.setattr(faiss, "_EXACT_ROWS_AN_EF", 0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"faiss:{tmp_path}/collection"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "collection"


# --- recall ----------------------------------------------------------------------------------------


def clustered(count: int, dim: int, seed: int) -> Any:
    """float32, (count, dim): around 200 centres, which are the same for every seed."""
    centres = np.random.default_rng(0).normal(size=(200, dim))
    source = np.random.default_rng([seed, 1])
    return (centres[source.integers(0, 200, count)] + 0.35 * source.normal(size=(count, dim))).astype(np.float32)


def recall(store: Store, queries: Any, where: dict[str, Any] | None, k: int = 10) -> float:
    condition = filters.parse(where)
    asked = [Query(Dense(q), k=k, where=condition, with_payload=False) for q in queries]
    truly = [Query(Dense(q), k=k, where=condition, with_payload=False, exact=True) for q in queries]
    found, best = store.search_many(asked), store.search_many(truly)
    return float(
        np.mean([len({h.id for h in f} & {h.id for h in b}) / len(b) for f, b in zip(found, best, strict=True)])
    )


def records(vectors: Any, start: int = 0) -> Iterator[Record]:
    """share: 0 to 99, at random. cluster: one of 10, by where the vector lies."""
    source = np.random.default_rng(start)
    for i, value in enumerate(vectors, start):
        payload = {"share": int(source.integers(100)), "side": bool(value[0] > 0), "far": float(value[1])}
        yield Record(f"r{i:05}", {"dense": value}, payload)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """20,000 x 64, indexed."""
    schema = Schema({"dense": VectorSpec(64)}, fields={"share": "integer"})
    with stores.connect(f"faiss:{tmp_path_factory.mktemp('faiss')}/filled", schema) as store:
        store.upsert(records(clustered(20_000, 64, seed=1)))
        store.optimize()
        yield store


def test_everything_is_in_the_index(filled: Store) -> None:
    told = filled.stats()
    assert told["indexed"] == 20_000
    assert told["index"] == "HNSW16,SQfp16: 20000 of 20000 vectors"
    assert told["disk_bytes"] > 20_000 * 64 * 4
    assert told["memory_bytes"] > 20_000 * 64 * 4


@pytest.mark.parametrize("percent", [1, 7, 30, 70, 100])
def test_recall_at_any_selectivity(filled: Store, percent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clustered(100, 64, seed=2)
    assert recall(filled, queries, {"share": {"$lt": percent}}) >= 0.99
    # Also where no selectivity is left to exact search from the start.
    monkeypatch.setattr(faiss, "_EXACT_ROWS", 0)
    monkeypatch.setattr(faiss, "_EXACT_ROWS_AN_EF", 0)
    assert recall(filled, queries, {"share": {"$lt": percent}}) >= 0.99


@pytest.mark.parametrize("where", [{"side": True}, {"far": {"$gt": 1.5}}, {"far": {"$lt": -2.5}}], ids=str)
def test_recall_where_a_condition_holds_in_some_regions_alone(filled: Store, where: dict[str, Any]) -> None:
    assert recall(filled, clustered(100, 64, seed=3), where) >= 0.99


@pytest.mark.parametrize("k", [1, 100, 1000])
def test_recall_of_few_and_of_many(filled: Store, k: int) -> None:
    queries = clustered(20, 64, seed=4)
    assert recall(filled, queries, None, k) >= 0.99
    assert recall(filled, queries, {"share": {"$lt": 50}}, k) >= 0.99


@pytest.mark.parametrize(
    ("index", "params", "least"),
    [
        ("", IndexParams(quantization="scalar"), 0.98),
        ("", IndexParams(quantization="product", oversampling=4), 0.9),
        ("", IndexParams(quantization="binary", oversampling=10), 0.9),
        ("HNSW32,SQ8", IndexParams(), 0.98),
        ("IVF64,Flat", IndexParams(), 0.9),
        ("IVF64,SQ8", IndexParams(), 0.9),
        ("PCA32,IVF64,Flat", IndexParams(oversampling=10), 0.8),
        ("SQfp16", IndexParams(), 0.99),
        ("Flat", IndexParams(), 1.0),
        ("BFlat", IndexParams(oversampling=50), 0.9),
        ("BHNSW32", IndexParams(oversampling=50), 0.9),
        ("BIVF64", IndexParams(oversampling=50), 0.8),
        ("BIVF64_HNSW16", IndexParams(oversampling=50), 0.8),
    ],
    ids=[
        "scalar",
        "product",
        "binary",
        "HNSW32,SQ8",
        "IVF64,Flat",
        "IVF64,SQ8",
        "PCA32,IVF64,Flat",
        "SQfp16",
        "Flat",
        "BFlat",
        "BHNSW32",
        "BIVF64",
        "BIVF64_HNSW16",
    ],
)
def test_every_kind_of_index(url: str, index: str, params: IndexParams, least: float) -> None:
    """Built, searched with and without conditions, extended, with dead records, and opened again."""
    schema = Schema({"dense": VectorSpec(32, "dot")}, fields={"share": "integer"}, index=params)
    given = f"{url}?index={index}" if index else url
    vectors, queries = clustered(16_000, 32, seed=5), clustered(30, 32, seed=6)
    with stores.connect(given, schema) as store:
        store.upsert(records(vectors[:10_500]))
        store.optimize()
        store.upsert(records(vectors[10_500:], 10_500))
        store.optimize()
        store.delete(f"r{i:05}" for i in range(0, 16_000, 10))
        for where in (None, {"share": {"$lt": 30}}, {"share": 5}):
            assert recall(store, queries, where) >= least, where
        told = store.stats()
        assert told["indexed"] == (0 if index == "Flat" else 16_000), told
        before = [hit.id for hit in store.search(Query(Dense(queries[0])))]
    with stores.connect(url) as store:
        assert store.stats()["indexed"] == told["indexed"]
        assert [hit.id for hit in store.search(Query(Dense(queries[0])))] == before


def test_recall_of_inner_products(url: str) -> None:
    """Graphs over inner products lose a tenth here, so these are searched for by distances; also of longer vectors."""
    vectors = clustered(12_000, 32, seed=1)
    with stores.connect(url, Schema({"dense": VectorSpec(32, "dot")}, fields={"share": "integer"})) as store:
        for start, factor in ((0, 0.5), (6_000, 1.0)):  # the second half is beyond what the first left room for
            store.upsert(records(factor * vectors[start : start + 6_000], start))
            store.optimize()
            queries = clustered(100, 32, seed=2)
            for where in (None, {"share": {"$lt": 15}}, {"share": {"$lt": 30}}, {"share": {"$lt": 70}}):
                assert recall(store, queries, where) >= 0.99, where
        assert store.stats()["indexed"] == 12_000


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_without_rescoring_are_near_the_true_ones(url: str, metric: Metric) -> None:
    schema = Schema({"dense": VectorSpec(32, metric)}, index=IndexParams(quantization="scalar", rescore=False))
    vectors = clustered(6_000, 32, seed=7)
    with stores.connect(url, schema) as store:
        store.upsert(records(vectors))
        store.optimize()
        query = clustered(1, 32, seed=8)[0]
        truth = true_scores(metric, query, {f"r{i:05}": value for i, value in enumerate(vectors)})
        hits = store.search(Query(Dense(query), k=20))
        assert len(hits) == 20
        assert [hit.score for hit in hits] == pytest.approx([truth[hit.id] for hit in hits], rel=0.02, abs=0.02)
        assert [hit.score for hit in hits] != [pytest.approx(truth[hit.id], rel=1e-7) for hit in hits]


# --- indexes on disk -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are worth it from 500 vectors on."""
    monkeypatch.setattr(faiss, "_INDEX_FROM", 500)


@pytest.mark.usefixtures("small")
def test_what_came_after_the_index_is_found(url: str) -> None:
    vectors = clustered(900, 16, seed=1)
    query = vectors[850]
    schema = Schema({"dense": VectorSpec(16, "l2")})
    with stores.connect(url, schema) as store:
        store.upsert(records(vectors[:600]))
        store.optimize()
        store.upsert(records(vectors[600:], 600))
        store.optimize()  # 300 are not worth it yet
        assert store.stats()["indexed"] == 600
        assert store.search(Query(Dense(query), k=1))[0].id == "r00850"
    with stores.connect(url) as store:
        assert store.stats()["indexed"] == 600
        assert store.search(Query(Dense(query), k=1))[0].id == "r00850"
        store.delete(["r00850"])
        store.upsert([Record("again", {"dense": query})])
        hits = store.search(Query(Dense(query), k=2))
        assert hits[0].id == "again"
        assert hits[1].id != "r00850"


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "harm", [Path.unlink, damaged, lambda path: path.write_bytes(b"x")], ids=["lost", "damaged", "cut"]
)
def test_an_index_that_is_lost_or_damaged_is_built_again(url: str, folder: Path, harm: Callable[[Path], Any]) -> None:
    vectors = clustered(600, 16, seed=1)
    with stores.connect(url, Schema({"dense": VectorSpec(16)})) as store:
        store.upsert(records(vectors))
        store.optimize()
        assert store.stats()["indexed"] == 600
    (saved,) = folder.glob("index-*")
    harm(saved)
    with stores.connect(url) as store:
        told = store.stats()
        assert (told["indexed"], "searched exactly" in told["index"]) == (0, True)
        assert store.search(Query(Dense(vectors[17]), k=1))[0].id == "r00017"
        store.optimize()
        assert store.stats()["indexed"] == 600
    with stores.connect(url) as store:
        assert store.stats()["indexed"] == 600


def test_an_index_waits_for_enough_to_train_it(url: str) -> None:
    schema = Schema({"dense": VectorSpec(16)}, index=IndexParams(quantization="product"))
    vectors = clustered(10_500, 16, seed=1)
    with stores.connect(url, schema) as store:
        store.upsert(records(vectors[:6_000]))
        store.optimize()
        told = store.stats()
        assert told["indexed"] == 0
        assert "from 9984 on" in told["index"]
        assert recall(store, clustered(10, 16, seed=2), None) == 1.0
        store.upsert(records(vectors[6_000:], 6_000))
        store.optimize()
        assert store.stats()["indexed"] == 10_500


def test_dead_records_are_removed_and_numbers_given_afresh(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_indexed(monkeypatch)
    schema = Schema({"dense": VectorSpec(4)}, fields={"n": "integer"})
    with stores.connect(url, schema) as store:
        for turn in range(6):
            store.upsert(plain(i, {"n": i, "turn": turn}) for i in range(40))
            store.optimize()
        store.delete(f"r{i:03}" for i in range(0, 40, 2))
        before = [(hit.id, hit.score) for hit in store.search(Query(Dense(vector(1)), k=40))]
        size = sum(path.stat().st_size for path in folder.glob("*.f32"))
        store.optimize()
        assert sum(path.stat().st_size for path in folder.glob("*.f32")) == 20 * 4 * 4 < size
        assert len(list(folder.glob("vectors-*"))) == len(list(folder.glob("index-*"))) == 1
    for _ in range(2):
        with stores.connect(url) as store:
            assert [(hit.id, hit.score) for hit in store.search(Query(Dense(vector(1)), k=40))] == before
            assert store.count({"n": {"$lt": 20}}) == store.count({"n": {"$lt": 20}, "turn": 5}) == 10
            for record, number in zip(store.get(["r001", "r039"], with_vectors=True), (1, 39), strict=True):
                want = vector(number) / np.linalg.norm(vector(number))
                np.testing.assert_allclose(record.vectors["dense"], want, rtol=1e-5)


def test_records_that_are_written_again_and_again_take_no_more_room(url: str, folder: Path) -> None:
    with stores.connect(url, SCHEMA) as store:
        for _ in range(8):
            store.upsert(Record(f"r{i}", {"dense": vector(i)}) for i in range(2_000))
        (vectors,) = folder.glob("vectors-*")
        assert vectors.stat().st_size <= 8_000 * 4 * 4
        assert store.count() == 2_000


# --- conditions ------------------------------------------------------------------------------------


def test_a_condition_is_evaluated_once_a_record(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    evaluate = filters.evaluate

    def counted(where: Any, payload: Any) -> bool:
        seen.append(payload["n"])
        return evaluate(where, payload)

    monkeypatch.setattr(filters, "evaluate", counted)
    with stores.connect(url, SCHEMA) as store:
        store.upsert(plain(i, {"n": i}) for i in range(10))
        assert store.count({"n": 1}) == store.count({"n": 1}) == 1
        assert sorted(seen) == list(range(10))
        store.upsert([plain(1, {"n": 99}), plain(20, {"n": 1})])
        assert [record.id for record in store.scan(where={"n": 1}).records] == ["r020"]
        assert sorted(seen[10:]) == [1, 99]
        assert store.count({"n": True}) == 0, "1 and true are not one condition"


# --- kills and threads -----------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path) -> None:
    source = random.Random()
    seed = source.randrange(1000)
    source.seed(seed)
    folder, journal = tmp_path / "kb", tmp_path / "journal"
    expected: dict[str, int | None] = {}
    acknowledged = 0
    for turn in range(10):
        journal.write_bytes(b"")
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.stores.faiss_writer", str(folder), str(journal), str(seed * 10 + turn + 1)],
            stderr=subprocess.PIPE,
        )
        while not journal.stat().st_size:  # imports are not what kills should fall on
            assert child.poll() is None, child.stderr and child.stderr.read().decode()
            time.sleep(0.005)
        time.sleep(source.uniform(0, 0.3))  # the random moment itself
        child.send_signal(signal.SIGKILL)
        child.communicate()
        allowed: dict[str, set[int | None]] = {i: {version} for i, version in expected.items()}
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
        for entry, following in zip(entries, [*entries[1:], None], strict=True):
            for record_id, version in entry.get("to", {}).items():
                done = following is not None
                allowed[record_id] = {version} if done else allowed.get(record_id, {None}) | {version}
            acknowledged += "done" in entry
        expected = check(folder, allowed, f"seed {seed}, turn {turn}")
    assert acknowledged > 0, f"seed {seed}: no call completed, so nothing was told"


def check(folder: Path, allowed: dict[str, set[int | None]], told: str) -> dict[str, int | None]:
    """What is there, held against what may be; get, scan, count and both kinds of search agree on it."""
    with stores.connect(f"faiss:{folder}") as store:
        there = {record.id: record for record in store.get(allowed, with_vectors=True)}
        found = {i: there[i].payload["version"] if i in there else None for i in allowed}
        wrong = {i: (version, allowed[i]) for i, version in found.items() if version not in allowed[i]}
        assert wrong == {}, told
        for record in there.values():
            want = faiss_writer.record(record.id, record.payload["version"])
            np.testing.assert_array_equal(record.vectors["other"], np.asarray(want.vectors["other"], np.float32))
        assert {record.id for record in store.scan_all()} == set(there), told
        assert store.count() == len(there), told
        for exact in (False, True):
            for find in (Dense(np.ones(8)), Dense(np.ones(4), "other")):
                hits = store.search(Query(find, k=1000, exact=exact))
                assert {hit.id for hit in hits} == set(there), told
        for version in {record.payload["version"] for record in there.values()}:
            same = {i for i, known in found.items() if known == version}
            assert {record.id for record in store.scan_all(where={"version": version})} == same, told
        return found


@pytest.mark.usefixtures("small")
def test_threads_search_while_an_index_is_built_and_extended(url: str) -> None:
    vectors = clustered(1_800, 32, seed=1)
    faults: list[BaseException] = []
    ended = threading.Event()

    with stores.connect(url, Schema({"dense": VectorSpec(32)}, fields={"share": "integer"})) as store:
        store.upsert(records(vectors[:200]))

        def search() -> None:
            source = random.Random(threading.get_ident())
            try:
                while not ended.is_set():
                    i = source.randrange(200)
                    where = filters.parse({"share": {"$gte": 0}}) if i % 2 else None
                    hits = store.search(Query(Dense(vectors[i]), k=5, where=where))
                    assert hits[0].id == f"r{i:05}"
                    assert len(hits) == 5
            except BaseException as fault:  # noqa: BLE001 -- told by the main thread
                faults.append(fault)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(200, 1_800, 400):
            store.upsert(records(vectors[start : start + 400], start))
            store.optimize()
        store.delete(f"r{i:05}" for i in range(200, 1_800, 2))
        store.optimize()
        ended.set()
        for thread in threads:
            thread.join()
        assert faults == []
        assert store.count() == 1_000


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("faiss:", errors.InvalidInput, "needs a folder"),
        ("faiss:{}?ef=1", errors.InvalidInput, "no option 'ef'; known are index and gpu"),
        ("faiss:{}?gpu=maybe", errors.InvalidInput, "true or false"),
        ("faiss:{}?index=BOGUS", errors.InvalidInput, "could not parse"),
        ("faiss:{}?index=PQ3", errors.InvalidInput, "multiple of the number of subquantizers"),
        ("faiss:{}?index=IDMap,Flat", errors.UnsupportedError, "leave .*IDMap"),
        ("faiss:{}?index=IVF16,PQ2,RFlat", errors.UnsupportedError, "leave .*RFlat"),
        ("faiss:{}?index=BHash16", errors.UnsupportedError, "there are BFlat, .*; or use quantization binary"),
        ("faiss:{}?index=BHNSW1", errors.InvalidInput, "at least 2 links"),
    ],
)
def test_bad_urls_make_nothing(folder: Path, given: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        stores.connect(given.format(folder), SCHEMA)
    assert not folder.exists()


def test_where_signs_mean_nothing_a_binary_index_is_refused(url: str, folder: Path) -> None:
    far = Schema({"dense": VectorSpec(4, "l2")})
    with pytest.raises(errors.UnsupportedError, match="'dense' is l2; use quantization binary"):
        stores.connect(f"{url}?index=BFlat", far)
    rough = Schema({"dense": VectorSpec(4)}, index=IndexParams(rescore=False))
    with pytest.raises(errors.UnsupportedError, match="Hamming distances are no scores; leave rescore on"):
        stores.connect(f"{url}?index=BHNSW32", rough)
    with pytest.raises(errors.InvalidInput, match="BFlat has no ef_construct and no ef"):
        stores.connect(f"{url}?index=BFlat", Schema({"dense": VectorSpec(4)}, index=IndexParams(ef=99, ef_construct=9)))
    assert not folder.exists()


@pytest.mark.parametrize("given", ["HNSW0", "HNSW1", "HNSW01_SQ8", "PCA2,HNSW1", "IVF4_HNSW1,SQ8", "IVF4(HNSW0),Flat"])
def test_too_few_links_are_refused_before_faiss_crashes(url: str, folder: Path, given: str) -> None:
    # Asked of `_check_factory` alone first, with a FAISS that does nothing: without the refusal this ends the process.
    with pytest.raises(errors.InvalidInput, match=r"at least 2 links"):
        faiss._check_factory(Untouchable(), SCHEMA, given)
    with pytest.raises(errors.InvalidInput, match=r"index=.*at least 2 links"):
        stores.connect(f"{url}?index={given}", SCHEMA)
    assert not folder.exists()


@pytest.mark.parametrize("quantization", ["none", "scalar", "product", "binary"])
def test_an_m_of_one_is_refused(url: str, folder: Path, quantization: Any) -> None:
    schema = Schema({"dense": VectorSpec(8)}, index=IndexParams(m=1, quantization=quantization))
    with pytest.raises(errors.InvalidInput, match=r"^m: .*at least 2 links"):
        stores.connect(url, schema)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "params", "said"),
    [
        ("Flat", IndexParams(ef_construct=500, ef=300), "no ef_construct and no ef;"),
        ("Flat", IndexParams(ef=300), "no ef;"),
        ("PCA2,SQ8", IndexParams(ef=300), "no ef;"),
        ("IVF16,SQ8", IndexParams(ef_construct=500, ef=300), "no ef_construct;"),
        ("PCA2,IVF16,Flat", IndexParams(ef_construct=500), "no ef_construct;"),
    ],
)
def test_what_an_index_has_no_use_for_is_refused(
    url: str, folder: Path, given: str, params: IndexParams, said: str
) -> None:
    with pytest.raises(errors.InvalidInput, match=said):
        stores.connect(f"{url}?index={given}", Schema({"dense": VectorSpec(4)}, index=params))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ("HNSW8,SQ8", IndexParams(ef_construct=500, ef=300)),
        ("PCA2,HNSW8", IndexParams(ef_construct=500, ef=300)),
        ("IVF16_HNSW8,Flat", IndexParams(ef_construct=500, ef=300)),
        ("IVF16,SQ8", IndexParams(ef=300)),
    ],
)
def test_what_an_index_has_a_use_for_is_taken(url: str, given: str, params: IndexParams) -> None:
    stores.connect(f"{url}?index={given}", Schema({"dense": VectorSpec(4)}, index=params)).close()


def test_an_index_of_no_lists_is_refused(url: str, folder: Path) -> None:
    with pytest.raises(errors.InvalidInput, match="at least 1 list"):
        stores.connect(f"{url}?index=IVF0_HNSW4,SQ8", SCHEMA)
    assert not folder.exists()


class Untouchable:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"FAISS was asked for {name}")


def test_an_index_that_knows_distances_alone_is_refused_for_products(url: str, folder: Path) -> None:
    with pytest.raises(errors.UnsupportedError, match="distances alone"):
        stores.connect(f"{url}?index=PCA2,HNSW16,PQ2", Schema({"dense": VectorSpec(4, "dot")}))
    assert not folder.exists()


def test_the_index_is_said_once(url: str, folder: Path) -> None:
    for params in (IndexParams(quantization="scalar"), IndexParams(m=32)):
        with pytest.raises(errors.InvalidInput, match="already"):
            stores.connect(f"{url}?index=HNSW32", Schema({"dense": VectorSpec(4)}, index=params))
    assert not folder.exists()


def test_another_index_is_another_collection(url: str) -> None:
    stores.connect(f"{url}?index=HNSW8", SCHEMA).close()
    with pytest.raises(errors.SchemaMismatch, match="index=HNSW8, not Flat"):
        stores.connect(f"{url}?index=Flat")
    for again in (url, f"{url}?index=HNSW8"):
        with stores.connect(again) as store:
            assert "HNSW8" in store.stats()["index"]


def test_a_folder_is_open_once(url: str) -> None:
    with stores.connect(url, SCHEMA), pytest.raises(errors.CollectionLocked, match="close it there"):
        stores.connect(url)
    stores.connect(url).close()


def test_what_is_no_collection(url: str, folder: Path) -> None:
    with pytest.raises(errors.NotACollection, match="give a schema"):
        stores.connect(url)
    assert not folder.exists()
    folder.write_text("a file")
    with pytest.raises(errors.NotACollection, match="is a file"):
        stores.connect(url, SCHEMA)
    folder.unlink()
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(errors.NotACollection, match="not empty"):
        stores.connect(url, SCHEMA)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_creation_that_was_cut_off_is_no_collection_and_can_be_made_again(url: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "records.sqlite").write_bytes(b"")
    (folder / "vectors-0-0.f32").write_bytes(b"1234")
    with pytest.raises(errors.NotACollection, match="give a schema"):
        stores.connect(url)
    with stores.connect(url, SCHEMA) as store:
        store.upsert([plain(0)])
        assert [hit.id for hit in store.search(Query(Dense(vector(0))))] == ["r000"]


@pytest.mark.parametrize(
    ("name", "content"), [("records.sqlite", b"no database " * 100), ("vectors-0-0.f32", b"short")]
)
def test_damage_is_told(url: str, folder: Path, name: str, content: bytes) -> None:
    with stores.connect(url, SCHEMA) as store:
        store.upsert([plain(0)])
    (folder / name).write_bytes(content)
    with pytest.raises(errors.CollectionDamaged, match=name):
        stores.connect(url)
    with pytest.raises(errors.CollectionDamaged, match=name):
        stores.connect(url, SCHEMA)


def test_a_payload_over_the_limit_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "MAX_PAYLOAD", 1000)
    with stores.connect(url, SCHEMA) as store:
        with pytest.raises(errors.InvalidRecord, match=r"'r001'.*split"):
            store.upsert([plain(0), plain(1, {"text": "x" * 1000})])
        assert store.count() == 0
        store.upsert([plain(0), plain(1, {"text": "x" * 900})])
        assert store.count() == 2


def test_a_missing_client_is_told_with_its_install_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(errors.MissingDependency, match=r"pip install 'nearest\[faiss\]'"):
        stores.connect(url, SCHEMA)


# --- a disk that is full or read-only --------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[..., None]]]:
    """A file system of its own, and what changes its options."""

    def mount(*options: str) -> None:
        flags = ",".join(options)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "tmpfs", str(tmp_path)], capture_output=True)
        if made.returncode and "remount" not in flags:
            pytest.skip(f"this user cannot mount a file system: {made.stderr.decode().strip()}")
        assert made.returncode == 0, made.stderr

    mount("size=20m")
    try:
        yield tmp_path, mount
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_stops_the_write_and_loses_nothing(disk: tuple[Path, Callable[..., None]]) -> None:
    place, mount = disk
    url = f"faiss:{place}/kb"
    done = 0
    with stores.connect(url, Schema({"dense": VectorSpec(256)})) as store:

        def fill() -> None:
            nonlocal done
            while True:
                store.upsert(
                    Record(f"r{i}", {"dense": vector(i, dim=256)}, {"text": "word " * 50})
                    for i in range(done, done + 500)
                )
                done += 500

        with pytest.raises(errors.DiskFull, match="free some space"):
            fill()
        assert 0 < done == store.count()
        assert store.search(Query(Dense(vector(done - 1, dim=256)), k=1))[0].id == f"r{done - 1}"
    with stores.connect(url) as store:
        assert store.count() == done
        mount("remount", "size=60m")
        store.upsert([Record("more", {"dense": vector(1, 1, dim=256)})])
        assert store.search(Query(Dense(vector(1, 1, dim=256)), k=1))[0].id == "more"


@pytest.mark.usefixtures("small")
def test_an_index_without_room_loses_nothing(disk: tuple[Path, Callable[..., None]]) -> None:
    place, mount = disk
    with stores.connect(f"faiss:{place}/kb", Schema({"dense": VectorSpec(32)}, index=IndexParams(m=128))) as store:
        store.upsert(records(clustered(2_000, 32, seed=1)))
        used = sum(path.stat().st_size for path in (place / "kb").iterdir())
        mount("remount", f"size={used + 2**18}")
        with pytest.raises(errors.DiskFull, match="free some space"):
            store.optimize()
        assert len(store.search(Query(Dense(np.ones(32)), k=10))) == 10
        assert not list((place / "kb").glob("index-*.faiss"))
        mount("remount", "size=60m")
    with stores.connect(f"faiss:{place}/kb") as store:
        assert store.count() == 2_000
        store.optimize()
        assert store.stats()["indexed"] == 2_000


def test_a_read_only_folder_is_refused_by_name(disk: tuple[Path, Callable[..., None]]) -> None:
    place, mount = disk
    stores.connect(f"faiss:{place}/kb", SCHEMA).close()
    mount("remount", "ro")
    for name in ("kb", "new"):
        with pytest.raises(errors.ReadOnly, match=name):
            stores.connect(f"faiss:{place}/{name}", SCHEMA)
    mount("remount", "rw")
    stores.connect(f"faiss:{place}/kb", SCHEMA).close()


def test_rows_that_were_shown_are_read_anew_when_slots_are_numbered_anew(url: str) -> None:
    vectors = np.eye(8, dtype=np.float32)
    with stores.connect(url, Schema({"dense": VectorSpec(8)})) as store:
        store.upsert(Record(f"r{i}", {"dense": v}, {"n": i}) for i, v in enumerate(vectors))
        assert len(store.search(Query(Dense(vectors[7]), 8))) == 8
        store.delete([f"r{i}" for i in range(5)])
        store.optimize()
        for i in (5, 6, 7):
            found = store.search(Query(Dense(vectors[i]), 1))
            assert [(hit.id, hit.payload["n"]) for hit in found] == [(f"r{i}", i)]
