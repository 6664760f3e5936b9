"""Every layer over the memory store keeps the whole contract."""

from __future__ import annotations

from typing import Any

import pytest

from nearest.contract import Capabilities, Schema, Store
from nearest.layers import stack
from nearest.layers.chaos import Chaos, Fault, by_chance
from nearest.layers.lexical import Lexical, companion_schema, inner_schema
from nearest.layers.metrics import Meter, Metrics
from nearest.layers.residual import Residual
from nearest.layers.retry import Retry
from nearest.layers.timeout import Timeout
from nearest.stores import memory
from nearest.stores.memory import MemoryStore
from nearest.testing import StoreSuite
from nearest.testing.base import Make


class Suite(StoreSuite):
    """Without the one test that takes as long as all others; it is about conditions, which these layers hand on."""

    test_differential = None  # type: ignore[assignment]


class TestTimeout(Suite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        return lambda schema: Timeout(MemoryStore.create(schema), 60.0)


class TestMetrics(Suite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        return lambda schema: Metrics(MemoryStore.create(schema), Meter())


class TestChaosThatOnlyDelays(Suite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        plan = by_chance({Fault("delay"): 0.5}, seed=1)
        return lambda schema: Chaos(MemoryStore.create(schema), plan)


class TestRetry(Suite):
    """Over a store of which every other call fails, in every way there is."""

    module = memory

    @pytest.fixture
    def make(self) -> Make:
        chances = {Fault("before"): 0.1, Fault("after"): 0.15, Fault("partial"): 0.15, Fault("throttle", 1.0): 0.1}

        def new(schema: Schema) -> Store:
            chaos = Chaos(MemoryStore.create(schema), by_chance(chances, seed=5))
            return Retry(chaos, attempts=100, sleep=lambda _: None)

        return new


class WordlessStore(MemoryStore):
    """The memory store without text search, and with few native conditions."""

    capabilities = Capabilities(MemoryStore.capabilities.features - {"text"}, frozenset({"$eq", "$exists"}))


class TestLexical(StoreSuite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        def new(schema: Schema) -> Store:
            inner = WordlessStore.create(inner_schema(schema))
            return inner if schema.text is None else Lexical(inner, MemoryStore.create(companion_schema(schema)))

        return new


class TestAll(Suite):
    """Everything at once, in the order in which they are stacked."""

    module = memory

    @pytest.fixture
    def make(self) -> Make:
        def new(schema: Schema) -> Store:
            inner, companion = MemoryStore.create(inner_schema(schema)), None
            if schema.text is not None:
                companion = MemoryStore.create(companion_schema(schema))
            return stack(inner, companion=companion, meter=Meter(), seconds=60.0, attempts=3)

        return new


@pytest.mark.parametrize(
    "wrap",
    [Residual, Timeout, lambda store: Metrics(store, Meter()), Retry],
    ids=["residual", "timeout", "metrics", "retry"],
)
def test_a_layer_tells_what_the_store_tells(wrap: Any) -> None:
    class Told(MemoryStore):
        def stats(self) -> dict[str, Any]:
            return {"disk_bytes": 5}

    inner = Told.create(Schema(text="t"))
    layer = wrap(inner)
    assert (layer.schema, layer.capabilities, layer.stats()) == (inner.schema, inner.capabilities, {"disk_bytes": 5})
    layer.close()
