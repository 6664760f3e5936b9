"""What the parts of the suite share: fixtures, the selection by capability, known gaps, and the truth in NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest

from nearest import filters
from nearest.contract import (
    Capabilities,
    Dense,
    Feature,
    FieldKind,
    Gap,
    Hit,
    Metric,
    Query,
    Record,
    Schema,
    Store,
    VectorSpec,
)
from nearest.layers.residual import Residual

Make = Callable[[Schema], Store]
Reopen = Callable[[Store, Schema | None], Store]
Test = TypeVar("Test", bound=Callable[..., None])

DIM = 4
ALL_OPS = frozenset({"$eq", "$in", *filters.ORDER_OPS, "$exists", "$contains"})


def needs(*features: Feature) -> Callable[[Test], Test]:
    """Marks a test that only a store declaring these features has; what the others do is `test_feature`."""

    def mark(test: Test) -> Test:
        test.needs = features  # type: ignore[attr-defined]
        return test

    return mark


class Base:
    """Fixtures and selection. A test takes `build` (every filter works) or `bare` (the store itself)."""

    # Class attributes; not ClassVar, so that a subclass may just assign them.
    module: ModuleType
    declared: Capabilities | None = None  # where they depend on the connection; else those of module.STORE

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        module = getattr(cls, "module", None)
        if module is None:
            return
        capabilities: Capabilities = cls.declared or module.STORE.capabilities
        for name, test in inspect.getmembers(cls, inspect.isfunction):
            if not all(feature in capabilities for feature in getattr(test, "needs", ())):
                setattr(cls, name, None)

    # What the author gives.

    @pytest.fixture
    def make(self) -> Make:
        """A function from a schema to a new, empty store; called several times in one test."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `make`: a function (schema) -> new store")

    @pytest.fixture
    def reopen(self) -> Reopen:
        """A function from a store that was closed, and a schema or None, to the same collection, open again."""
        raise NotImplementedError(
            f"{type(self).__name__} declares `durable` and so needs a fixture `reopen`: a function "
            "(closed store, schema or None) -> the store open again"
        )

    # What the tests take.

    @pytest.fixture
    def bare(self, make: Make) -> Iterator[Make]:
        made: list[Store] = []

        def open_new(schema: Schema) -> Store:
            made.append(make(schema))
            return made[-1]

        yield open_new
        for store in made:
            store.close()

    @pytest.fixture
    def build(self, bare: Make) -> Make:
        return lambda schema: complete(bare(schema))

    @pytest.fixture
    def store(self, build: Make) -> Store:
        """One dense vector of dimension 4, no declared fields, no records."""
        return build(self.schema())

    # Gaps.

    @pytest.fixture(autouse=True)
    def _known_gap(self, request: pytest.FixtureRequest) -> None:
        for gap in self.gaps():
            if gap.test in (request.node.name, request.node.originalname):
                reason = f"{gap.why}: {gap.reason}"
                request.applymarker(pytest.mark.xfail(strict=True, reason=reason))

    def test_every_gap_names_a_test(self) -> None:
        names = {name for name, test in inspect.getmembers(self, inspect.ismethod) if name.startswith("test_")}
        for name in list(names):
            for mark in getattr(getattr(self, name), "pytestmark", ()):
                if mark.name == "parametrize":
                    names |= {f"{name}[{given}]" for given in mark.kwargs["ids"]}
        assert [gap.test for gap in self.gaps() if gap.test not in names] == []

    @classmethod
    def gaps(cls) -> Sequence[Gap]:
        gaps: Sequence[Gap] = cls.module.KNOWN_GAPS
        return gaps

    # What the store declares.

    @property
    def capabilities(self) -> Capabilities:
        capabilities: Capabilities = self.declared or self.module.STORE.capabilities
        return capabilities

    @property
    def metrics(self) -> list[Metric]:
        every: tuple[Metric, ...] = ("cosine", "dot", "l2")
        return [metric for metric in every if metric in self.capabilities]

    @property
    def metric(self) -> Metric:
        """The one that a test uses where any will do."""
        return self.metrics[0]

    def schema(
        self,
        *,
        dim: int = DIM,
        metric: Metric | None = None,
        fields: Mapping[str, FieldKind] | None = None,
        **more: Any,
    ) -> Schema:
        return Schema(vectors={"dense": VectorSpec(dim, metric or self.metric)}, fields=fields or {}, **more)


def complete(store: Store) -> Store:
    """The store, with every filter: itself where it runs all of them, else inside `Residual`."""
    native = type(store).filter_support is Store.filter_support and store.capabilities.filters >= ALL_OPS
    return store if native else Residual(store)


# --- writing: visible to the next search when these return ---


def put(store: Store, records: Iterable[Record]) -> None:
    store.upsert(records)
    _settle(store)


def drop(store: Store, ids: Iterable[str]) -> None:
    store.delete(ids)
    _settle(store)


def drop_where(store: Store, where: Mapping[str, Any]) -> None:
    store.delete_where(where)
    _settle(store)


def _settle(store: Store) -> None:
    if not store.capabilities.read_your_writes:
        store.wait()


# --- records and what is true of them ---


def vector(*seed: int, dim: int = DIM) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32, (dim,): a direction of its own for every seed, so that no two scores tie."""
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


def plain(number: int, payload: Mapping[str, Any] | None = None, record_id: str | None = None) -> Record:
    """A record of `Base.schema()`; its id is r000, r001, ... unless given."""
    return Record(record_id or f"r{number:03}", {"dense": vector(number)}, payload or {})


def true_scores(metric: Metric, query: Any, vectors: Mapping[str, Any]) -> dict[str, float]:
    """The contract's score of each vector against (d,), in float64; by id."""
    wanted = np.asarray(query, np.float64)
    scores: dict[str, float] = {}
    for record_id, value in vectors.items():
        stored = np.asarray(value, np.float64)
        if metric == "l2":
            scores[record_id] = -float(np.sqrt(((stored - wanted) ** 2).sum()))
        else:
            product = float(stored @ wanted)
            lengths = float(np.sqrt(stored @ stored) * np.sqrt(wanted @ wanted))
            scores[record_id] = product / lengths if metric == "cosine" else product
    return scores


def check_ranking(hits: Sequence[Hit], truth: Mapping[str, float], k: int, tolerance: float = 1e-4) -> None:
    """The hits are the best k of what is true: the right scores, falling, ties by id, none twice.

    Two records whose true scores are within the tolerance of each other may change places.
    """
    ranked = sorted(truth.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    ids = [hit.id for hit in hits]
    assert len(ids) == len(set(ids)), f"a record twice among {ids}"
    assert len(ids) == len(ranked), f"{len(ids)} hits instead of {len(ranked)}: {ids}"
    assert set(ids) <= set(truth), f"hits that should not be there: {sorted(set(ids) - set(truth))}"
    assert_order(hits)
    for place, (hit, (best, score)) in enumerate(zip(hits, ranked, strict=True)):
        slack = tolerance * max(1.0, abs(score))
        assert abs(hit.score - truth[hit.id]) <= slack, f"{hit.id}: score {hit.score}, truly {truth[hit.id]}"
        assert abs(truth[hit.id] - score) <= 2 * slack, f"place {place} has {hit.id}, which should be {best}"


def assert_order(hits: Sequence[Hit]) -> None:
    """By falling score, ties by id."""
    assert [hit.id for hit in hits] == [hit.id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.id))]


def found(store: Store, where: Mapping[str, Any] | None = None, dim: int = DIM) -> set[str]:
    """The ids that a search by the dense vector finds under a condition, of up to 1,000."""
    hits = store.search(Query(Dense(np.ones(dim)), k=1000, where=filters.parse(where)))
    return {hit.id for hit in hits}


def same_json(a: Any, b: Any) -> bool:
    """Equal, and of equal types: True is not 1, and 1.0 is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same_json(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)
