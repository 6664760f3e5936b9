"""Search by vectors: scores recomputed here, order, k, conditions, fusion, and what must be refused."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from nearest import filters
from nearest.contract import (
    MAX_K,
    Dense,
    Feature,
    Fused,
    FusionMethod,
    IndexParams,
    Metric,
    QuantizationKind,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Store,
    Text,
    VectorSpec,
    fused_scores,
)
from nearest.errors import InvalidFilter, InvalidQuery, UnsupportedError
from nearest.testing.base import (
    DIM,
    Base,
    Make,
    assert_order,
    check_ranking,
    drop,
    needs,
    plain,
    put,
    true_scores,
    vector,
)

# What a caller can ask of a store by its schema or its query; the rest of `Feature` is not visible from outside.
ASKABLE: tuple[Feature, ...] = (
    "dense", "sparse", "multi_vector", "named_vectors", "text", "cosine", "dot", "l2", "scalar", "product", "binary",
    "exact",
)  # fmt: skip
_SILENT: frozenset[Feature] = frozenset({"native_fusion", "hnsw", "payload_index", "durable"})


class Searching(Base):
    # Capabilities.

    def test_every_feature_is_tested(self) -> None:
        assert {*ASKABLE, *_SILENT} == set(get_args(Feature))
        assert self.capabilities.features <= set(get_args(Feature))
        assert "dense" in self.capabilities, "the suite needs dense vectors"
        assert self.metrics, "the suite needs a metric"

    @pytest.mark.parametrize("feature", ASKABLE, ids=ASKABLE)
    def test_feature(self, bare: Make, feature: Feature) -> None:
        """What a store declares works; what it does not declare raises UnsupportedError."""
        if feature in self.capabilities:
            schema, record, query = self._asking(feature)
            store = bare(schema)
            put(store, [record])
            assert [hit.id for hit in store.search(query)] == [record.id]
            return
        schema, _, query = self._asking(feature)
        with pytest.raises(UnsupportedError):
            bare(schema).search(query)

    def _asking(self, feature: Feature) -> tuple[Schema, Record, Query]:
        """A schema and a query that cannot do without a feature, and a record that the query finds."""
        dense, index = vector(0, dim=8), IndexParams()
        metric, multi, more = self.metric, False, {}
        payload: dict[str, Any] = {}
        query = Query(Dense(dense))
        match feature:
            case "sparse":
                some = SparseVector(np.array([1]), np.array([1.0]))
                schema = Schema({"dense": VectorSpec(8, metric)}, sparse=("words",))
                return schema, Record("a", {"dense": dense, "words": some}), Query(Sparse(some, "words"))
            case "text":
                schema = Schema({"dense": VectorSpec(8, metric)}, text="body")
                return schema, Record("a", {"dense": dense}, {"body": "word"}), Query(Text("word"))
            case "multi_vector":
                schema = Schema({"dense": VectorSpec(8, metric, multi=True)})
                return schema, Record("a", {"dense": dense[None]}), Query(Dense(dense[None]))
            case "named_vectors":
                more = {"second": VectorSpec(3, metric)}
            case "cosine" | "dot" | "l2":
                metric = feature
            case "scalar" | "product" | "binary":
                index = IndexParams(quantization=feature)
            case "exact":
                query = Query(Dense(dense), exact=True)
        schema = Schema({"dense": VectorSpec(8, metric, multi), **more}, index=index)
        vectors = {"dense": dense, **{name: vector(1, dim=spec.dim) for name, spec in more.items()}}
        return schema, Record("a", vectors, payload), query

    # Scores and order.

    def test_dense_scores(self, build: Make) -> None:
        """The cosine, the inner product, the negated Euclidean distance: as NumPy computes them."""
        for metric in self.metrics:
            store = build(self.schema(metric=metric, dim=16))
            vectors = {f"r{i:03}": vector(i, dim=16) * (1 + i % 5) for i in range(60)}
            put(store, [Record(record_id, {"dense": value}) for record_id, value in vectors.items()])
            for seed in range(5):
                query = vector(1, seed, dim=16) * 3
                truth = true_scores(metric, query, vectors)
                assert min(truth.values()) < 0
                assert metric == "l2" or max(truth.values()) > 0
                for k in (1, 7, 60, 100):
                    check_ranking(store.search(Query(Dense(query), k=k)), truth, k)

    def test_scores_of_equal_and_opposite_vectors(self, build: Make) -> None:
        for metric in self.metrics:
            store = build(self.schema(metric=metric))
            value = np.array([3.0, 0.0, 4.0, 0.0])
            put(store, [Record("same", {"dense": value}), Record("opposite", {"dense": -value})])
            scores = {hit.id: hit.score for hit in store.search(Query(Dense(value)))}
            expected = {"cosine": (1.0, -1.0), "dot": (25.0, -25.0), "l2": (0.0, -10.0)}[metric]
            assert (scores["same"], scores["opposite"]) == pytest.approx(expected, abs=1e-5)

    @needs("cosine")
    def test_a_cosine_is_never_beyond_one(self, build: Make) -> None:
        for dim in (2, 33):
            store = build(self.schema(metric="cosine", dim=dim))
            values = [vector(i, dim=dim) * 10 ** (i % 7 - 3) for i in range(200)]
            put(
                store,
                [Record(f"r{sign}:{i}", {"dense": sign * value}) for i, value in enumerate(values) for sign in (1, -1)],
            )
            for hits in store.search_many([Query(Dense(value), k=400) for value in values]):
                scores = [hit.score for hit in hits]
                assert -1.0 <= min(scores) < -0.99999
                assert 0.99999 < max(scores) <= 1.0

    @needs("cosine")
    def test_a_cosine_does_not_depend_on_lengths(self, build: Make) -> None:
        """Also of vectors whose squared length float32 cannot hold, stored or asked for."""
        store = build(self.schema(metric="cosine"))
        lengths = [1e-30, 1e-20, 1.0, 1e18, 1e30]
        vectors = {f"r{i:03}": vector(i) * length for i, length in enumerate(lengths)}
        put(store, [Record(record_id, {"dense": value}) for record_id, value in vectors.items()])
        for record in store.get(vectors, with_vectors=True):
            assert np.linalg.norm(record.vectors["dense"].astype(np.float64)) == pytest.approx(1.0, rel=1e-5)
        for length in lengths:
            query = vector(8, 8) * length
            check_ranking(store.search(Query(Dense(query))), true_scores("cosine", query, vectors), 10)

    @needs("sparse")
    def test_sparse_scores(self, build: Make) -> None:
        """The inner product, of those that share an index with the query."""
        store = build(self.schema(sparse=("words",)))
        random = np.random.default_rng(0)
        rows: dict[str, dict[int, float]] = {}
        for i in range(40):
            indices = random.choice(30, size=int(random.integers(1, 6)), replace=False)
            rows[f"r{i:03}"] = {int(index): float(random.normal()) for index in indices}
        records = [
            Record(record_id, {"dense": vector(0), "words": _sparse(row)}, {}) for record_id, row in rows.items()
        ]
        put(store, [*records, plain(999)])
        signs = set()
        for _ in range(5):
            query = {int(i): float(random.normal()) for i in random.choice(40, size=8, replace=False)}
            truth = {
                record_id: sum(value * query[index] for index, value in row.items() if index in query)
                for record_id, row in rows.items()
                if row.keys() & query.keys()
            }
            signs |= {value > 0 for value in truth.values()}
            for k in (3, 100):
                check_ranking(store.search(Query(Sparse(_sparse(query), "words"), k=k)), truth, k)
        assert signs == {True, False}

    @needs("sparse")
    def test_a_sparse_query_that_shares_no_index_finds_nothing(self, build: Make) -> None:
        store = build(self.schema(sparse=("words",)))
        put(store, [Record("a", {"dense": vector(0), "words": _sparse({1: 1.0})})])
        put(store, [Record("b", {"dense": vector(0), "words": _sparse({})})])
        assert store.search(Query(Sparse(_sparse({2: 1.0}), "words"))) == []
        assert store.search(Query(Sparse(_sparse({}), "words"))) == []
        assert [hit.id for hit in store.search(Query(Sparse(_sparse({1: 1.0}), "words")))] == ["a"]

    @needs("multi_vector")
    @pytest.mark.parametrize("metric", ["cosine", "dot", "l2"], ids=["cosine", "dot", "l2"])
    def test_multi_vector_scores(self, build: Make, metric: Metric) -> None:
        """MaxSim: each query vector counts its best match (Khattab and Zaharia, 2020)."""
        schema = Schema(vectors={"tokens": VectorSpec(DIM, metric, multi=True)})
        if metric not in self.capabilities:
            with pytest.raises(UnsupportedError, match=metric):
                build(schema)
            return
        store = build(schema)
        rows = {f"r{i:03}": np.stack([vector(i, j) * (1 + j) for j in range(1 + i % 5)]) for i in range(30)}
        put(store, [Record(record_id, {"tokens": value}) for record_id, value in rows.items()])
        for size in (1, 3):
            query = np.stack([vector(9, size, j) for j in range(size)])
            truth = {record_id: _max_sim(metric, query, value) for record_id, value in rows.items()}
            for k in (4, 30):
                check_ranking(store.search(Query(Dense(query, "tokens"), k=k)), truth, k)

    @needs("named_vectors")
    def test_each_named_vector_is_searched_by_itself(self, build: Make) -> None:
        specs = {"one": VectorSpec(3, self.metrics[0]), "other one": VectorSpec(5, self.metrics[-1])}
        store = build(Schema(vectors=specs))
        rows = {f"r{i:03}": {name: vector(i, 1, dim=spec.dim) for name, spec in specs.items()} for i in range(20)}
        put(store, [Record(record_id, vectors) for record_id, vectors in rows.items()])
        for name, spec in specs.items():
            query = vector(77, dim=spec.dim)
            truth = true_scores(spec.metric, query, {record_id: vectors[name] for record_id, vectors in rows.items()})
            check_ranking(store.search(Query(Dense(query, name), k=6)), truth, 6)
        assert set(store.search(Query(Dense(vector(0, dim=3), "one"), k=1, with_vectors=True))[0].vectors) == set(specs)

    def test_ties_are_in_order_of_id(self, store: Store) -> None:
        ids = ["b", "a", "10", "9", "B", "é", "z"]
        put(store, [Record(record_id, {"dense": [1, 2, 3, 4]}) for record_id in ids])
        put(store, [Record("far", {"dense": [-1, -2, 3, -4]})])
        hits = store.search(Query(Dense([1, 2, 3, 4])))
        assert [hit.id for hit in hits] == [*sorted(ids), "far"]

    def test_k_larger_than_the_collection_finds_all(self, store: Store) -> None:
        put(store, [plain(i) for i in range(7)])
        for k in (7, 8, MAX_K):
            assert len(store.search(Query(Dense(vector(0)), k=k))) == 7

    def test_an_empty_collection_has_no_hits(self, store: Store) -> None:
        assert store.search(Query(Dense(vector(0)))) == []
        put(store, [plain(0)])
        drop(store, ["r000"])
        assert store.search(Query(Dense(vector(0)))) == []

    def test_a_search_sees_what_was_written_before(self, store: Store) -> None:
        query = Query(Dense(vector(0)), k=3)
        for i in range(5):
            put(store, [plain(0, {"n": i}), plain(i + 1)])
            assert store.search(query)[0].payload == {"n": i}
            drop(store, ["r000"])
            assert "r000" not in {hit.id for hit in store.search(query)}
        put(store, [Record("r001", {"dense": vector(0)})])
        assert store.search(query)[0].id == "r001"

    def test_payload_and_vectors_come_as_asked(self, store: Store) -> None:
        put(store, [plain(0, {"a": [1, {"b": None}]})])
        put(store, [plain(1, {"a": 2}, "3b9f3c1e-8b1d-4a57-9d3e-0a4a8b1c2d3e")])
        for hit in store.search(Query(Dense(vector(0)))):
            assert (hit.payload, hit.vectors) == (store.get([hit.id])[0].payload, {})
        for hit in store.search(Query(Dense(vector(0)), with_payload=False, with_vectors=True)):
            assert hit.payload == {}
            np.testing.assert_allclose(
                hit.vectors["dense"], store.get([hit.id], with_vectors=True)[0].vectors["dense"], rtol=1e-6
            )

    def test_a_search_under_a_condition(self, store: Store) -> None:
        """Exactly the best k among those that satisfy it, also where it holds for few, for the far ones, for none."""
        put(store, [plain(i, {"n": i, "even": i % 2 == 0}) for i in range(80)])
        query = vector(1, 2)
        truth = true_scores(self.metric, query, {f"r{i:03}": vector(i) for i in range(80)})
        far = set(sorted(truth, key=lambda record_id: truth[record_id])[:3])
        put(store, [plain(i, {"n": i, "even": i % 2 == 0, "far": True}) for i in range(80) if f"r{i:03}" in far])
        chosen: list[tuple[dict[str, Any], set[str]]] = [
            ({"even": True}, {f"r{i:03}" for i in range(0, 80, 2)}),
            ({"n": {"$in": [3, 50, 99]}}, {"r003", "r050"}),
            ({"far": True}, far),
            ({"n": -1}, set()),
        ]
        for where, ids in chosen:
            for k in (1, 5, 80):
                hits = store.search(Query(Dense(query), k=k, where=filters.parse(where)))
                check_ranking(hits, {record_id: truth[record_id] for record_id in ids}, k)

    def test_a_condition_may_be_given_as_it_is_written(self, store: Store) -> None:
        put(store, [plain(0, {"a": 1}), plain(1, {"a": 2})])
        written: Any = {"a": 2}
        assert [hit.id for hit in store.search(Query(Dense(vector(0)), where=written))] == ["r001"]
        wrong: Any = {"a": {"$equals": 2}}
        with pytest.raises(InvalidFilter, match="unknown operator"):
            store.search(Query(Dense(vector(0)), where=wrong))

    def test_many_searches_are_as_one_by_one(self, store: Store) -> None:
        put(store, [plain(i, {"n": i}) for i in range(30)])
        where = filters.parse({"n": {"$lt": 10}})
        queries = [Query(Dense(vector(5, i)), k=1 + i, where=where if i % 2 else None) for i in range(6)]
        queries += [Query(Dense(vector(5, 0)), with_vectors=True), queries[0]]
        queries.append(Query(Fused((Dense(vector(5, 1)), Dense(vector(5, 2)))), k=4))
        together = store.search_many(queries)
        assert len(together) == len(queries)
        for query, hits in zip(queries, together, strict=True):
            alone = store.search(query)
            assert [hit.id for hit in hits] == [hit.id for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-6)
            assert [hit.payload for hit in hits] == [hit.payload for hit in alone]
            assert [set(hit.vectors) for hit in hits] == [set(hit.vectors) for hit in alone]
        assert store.search_many([]) == []

    # Fusion.

    @pytest.mark.parametrize("method", get_args(FusionMethod), ids=get_args(FusionMethod))
    def test_fused_scores(self, build: Make, method: FusionMethod) -> None:
        """As `fused_scores` makes them of the separate searches, with weights, conditions and few candidates."""
        store, parts = self._fusible(build)
        where = filters.parse({"n": {"$lt": 25}})
        # Weights that are all 0 are refused, so a lone part has none of 0.
        zero = [(0.0, *[1.0] * (len(parts) - 1))] if len(parts) > 1 else []
        for weights in (None, tuple(0.5 + i for i in range(len(parts))), *zero):
            for condition in (None, where):
                for candidates in (8, 100):
                    find = Fused(parts, method, weights, candidates)
                    hits = store.search(Query(find, k=6, where=condition))
                    separate = [store.search(Query(part, k=candidates, where=condition)) for part in parts]
                    rankings = [[(hit.id, hit.score) for hit in part] for part in separate]
                    truth = fused_scores(find, rankings)
                    check_ranking(hits, truth, 6, tolerance=1e-6)
                    if method in ("adaptive", "normalized"):
                        assert all(0.0 <= hit.score <= 1.0 for hit in hits)
                    assert [hit.payload for hit in hits] == [r.payload for r in store.get(hit.id for hit in hits)]

    def test_the_constant_of_reciprocal_ranks(self, build: Make) -> None:
        """A score is the sum of 1 / (rrf_k + rank), and ranks count from 1."""
        store, parts = self._fusible(build)
        for rrf_k in (0, 1, 100):
            hits = store.search(Query(Fused(parts[:1], "rrf", rrf_k=rrf_k), k=5))
            assert [hit.score for hit in hits] == pytest.approx([1 / (rrf_k + rank) for rank in range(1, 6)], rel=1e-5)

    @pytest.mark.parametrize("method", get_args(FusionMethod), ids=get_args(FusionMethod))
    def test_a_fused_hit_tells_its_parts(self, build: Make, method: FusionMethod) -> None:
        store, parts = self._fusible(build)
        hits = store.search(Query(Fused(parts, method, candidates=8), k=8, explain=True))
        names = ["dense", *(["words"] if "sparse" in self.capabilities else [])]
        names += ["lexical"] if "text" in self.capabilities else []
        lists = dict(zip(names, (store.search(Query(part, k=8)) for part in parts), strict=True))
        places = {name: {hit.id: (rank, hit.score) for rank, hit in enumerate(lists[name], 1)} for name in names}
        for hit in hits:
            assert hit.explain is not None
            told = {name: (part["rank"], part["score"]) for name, part in hit.explain.items()}
            expected = {name: places[name][hit.id] for name in names if hit.id in places[name]}
            assert set(told) == set(expected)
            for name, (rank, score) in expected.items():
                assert told[name] == (rank, pytest.approx(score, abs=1e-5))
        assert all(hit.explain is None for hit in store.search(Query(Fused(parts, method), k=8)))

    def test_a_fused_search_honours_payload_and_vectors(self, build: Make) -> None:
        store, parts = self._fusible(build)
        hits = store.search(Query(Fused(parts), k=3, with_payload=False, with_vectors=True))
        assert len(hits) == 3
        assert all(hit.payload == {} and "dense" in hit.vectors for hit in hits)
        assert all(hit.vectors == {} and "n" in hit.payload for hit in store.search(Query(Fused(parts), k=3)))

    def test_a_fused_search_of_nothing(self, build: Make) -> None:
        store, parts = self._fusible(build)
        assert store.search(Query(Fused(parts), where=filters.parse({"n": -1}))) == []

    def test_equal_fused_scores_are_in_order_of_id(self, store: Store) -> None:
        put(store, [Record(record_id, {"dense": [1, 1, 1, 1]}) for record_id in ["c", "a", "d", "b"]])
        hits = store.search(Query(Fused((Dense([1, 1, 1, 1]), Dense([1, 2, 1, 1])))))
        assert [hit.id for hit in hits] == ["a", "b", "c", "d"]
        assert [hit.score for hit in hits] == [1.0] * 4

    def _fusible(self, build: Make) -> tuple[Store, tuple[Dense | Sparse | Text, ...]]:
        """A store of 40 records, and one query of every kind that it has."""
        sparse, text = "sparse" in self.capabilities, "text" in self.capabilities
        store = build(self.schema(sparse=("words",) if sparse else (), text="body" if text else None))
        records = []
        for i in range(40):
            vectors: dict[str, Any] = {"dense": vector(i)}
            if sparse and i % 2:
                vectors["words"] = _sparse({i % 3: 1 + i / 7, 10 + i: 1.0})
            # Every text has a length of its own, so that no two BM25 scores tie.
            body = " ".join(["apple"] * (1 + i % 4) + [f"filler{j}" for j in range(i)])
            records.append(Record(f"r{i:03}", vectors, {"n": i, "body": body if i % 3 else "pear"}))
        put(store, records)
        parts: list[Dense | Sparse | Text] = [Dense(vector(3, 3))]
        parts += [Sparse(_sparse({0: 1.0, 1: 0.7, 2: 0.3}), "words")] if sparse else []
        parts += [Text("apple")] if text else []
        return store, tuple(parts)

    # Approximation.

    @pytest.mark.parametrize("kind", ["scalar", "product", "binary"], ids=["scalar", "product", "binary"])
    def test_rescored_quantization_keeps_the_order(self, build: Make, kind: QuantizationKind) -> None:
        """With enough candidates the scores and the order are those of the full vectors."""
        if kind not in self.capabilities:
            with pytest.raises(UnsupportedError, match=kind):
                build(self.schema(index=IndexParams(quantization=kind)))
            return
        for metric in self.metrics:
            index = IndexParams(quantization=kind, rescore=True, oversampling=100.0)
            store = build(self.schema(dim=64, metric=metric, index=index))
            vectors = {f"r{i:03}": vector(i, dim=64) for i in range(300)}
            put(store, [Record(record_id, {"dense": value}) for record_id, value in vectors.items()])
            store.optimize()
            for seed in range(3):
                query = vector(5, seed, dim=64)
                check_ranking(store.search(Query(Dense(query), k=10)), true_scores(metric, query, vectors), 10)

    def test_optimize_flush_and_wait_change_no_answer(self, store: Store) -> None:
        put(store, [plain(i) for i in range(200)])
        query = Query(Dense(vector(9, 9)), k=20)
        before = [(hit.id, hit.score) for hit in store.search(query)]
        for _ in range(2):
            store.optimize()
            store.flush()
            store.wait()
            assert [hit.id for hit in store.search(query)] == [record_id for record_id, _ in before]
        assert store.count() == 200

    @needs("hnsw")
    def test_an_index_finds_nearly_all(self, build: Make) -> None:
        store, truth, query = self._indexed(build)
        best = {record_id for record_id, _ in sorted(truth.items(), key=lambda pair: -pair[1])[:20]}
        hits = store.search(Query(Dense(query), k=20, ef=400))
        assert len(best & {hit.id for hit in hits}) >= 18
        assert_order(hits)

    @needs("exact")
    def test_an_exact_search_finds_all(self, build: Make) -> None:
        store, truth, query = self._indexed(build)
        check_ranking(store.search(Query(Dense(query), k=50, exact=True)), truth, 50)

    def _indexed(self, build: Make) -> tuple[Store, dict[str, float], Any]:
        store = build(self.schema(dim=24))
        values = np.random.default_rng(1).normal(size=(3000, 24)).astype(np.float32)
        vectors = {f"r{i:04}": values[i] for i in range(len(values))}
        put(store, [Record(record_id, {"dense": value}) for record_id, value in vectors.items()])
        store.optimize()
        query = vector(7, 7, dim=24)
        return store, true_scores(self.metric, query, vectors), query

    # Refusals.

    def test_a_bad_k_is_refused(self, store: Store) -> None:
        bad: list[Any] = [0, -1, True, 1.5, "1", None, MAX_K + 1]
        for k in bad:
            with pytest.raises(InvalidQuery, match="k must be"):
                store.search(Query(Dense(vector(0)), k=k))

    def test_bad_query_vectors_are_refused(self, store: Store) -> None:
        put(store, [plain(0)])
        bad: list[Any] = [[1, 2, 3], [1, 2, 3, np.nan], [1, 2, 3, np.inf], [vector(0)], "text", None, [1, 2, 3, 1e39]]
        for value in bad + ([[0, 0, 0, 0]] if self.metric == "cosine" else []):
            with pytest.raises(InvalidQuery, match="dense"):
                store.search(Query(Dense(value)))

    def test_what_the_schema_lacks_cannot_be_searched(self, store: Store) -> None:
        with pytest.raises(InvalidQuery, match="nobody"):
            store.search(Query(Dense(vector(0), "nobody")))
        with pytest.raises((InvalidQuery, UnsupportedError)):
            store.search(Query(Sparse(_sparse({1: 1.0}), "nobody")))
        with pytest.raises((InvalidQuery, UnsupportedError)):
            store.search(Query(Text("word")))

    def test_bad_searches_are_refused(self, store: Store) -> None:
        part = Dense(vector(0))
        bad: list[Any] = [
            Query(None),  # type: ignore[arg-type]
            Query(part, ef=0),
            Query(Fused(())),
            Query(Fused((Fused((part,)),))),  # type: ignore[arg-type]
            Query(Fused((part,), "sum")),  # type: ignore[arg-type]
            Query(Fused((part,), candidates=0)),
            Query(Fused((part,), candidates=MAX_K + 1)),
            Query(Fused((part, part), weights=(1.0,))),
            Query(Fused((part, part), weights=(1.0, -1.0))),
            Query(Fused((part, part), weights=(1.0, float("nan")))),
            Query(Fused((part, part), weights=(0.0, 0.0))),
            Query(Fused((part,), "rrf", rrf_k=-1)),
            Query(Fused((part, Dense(vector(0), "nobody")))),
        ]
        for query in bad:
            with pytest.raises(InvalidQuery):
                store.search(query)
            with pytest.raises(InvalidQuery):
                store.search_many([Query(part), query])


def _max_sim(metric: Metric, query: Any, stored: Any) -> float:
    each = [true_scores(metric, part, {str(i): value for i, value in enumerate(stored)}) for part in query]
    return sum(max(scores.values()) for scores in each)


def _sparse(values: dict[int, float]) -> SparseVector:
    return SparseVector(np.array(list(values), np.int64), np.array(list(values.values())))
