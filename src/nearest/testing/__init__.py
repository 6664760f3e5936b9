"""The conformance suite: every sentence of the contract as a test, for people who write their own store.

One file is enough:

    from nearest.testing import StoreSuite
    from my_package import my_store

    class TestMyStore(StoreSuite):
        module = my_store

        @pytest.fixture
        def make(self, tmp_path):
            names = itertools.count()
            return lambda schema: my_store.connect(StoreURL.parse(f"mine:{tmp_path}/{next(names)}"), schema)

        @pytest.fixture
        def reopen(self):  # only for a store that declares `durable`
            return lambda store, schema: my_store.connect(store.url, schema)  # store was closed

Which tests there are follows from what the store declares, never from its name: a capability it declares
is tested to work, one that it lacks is tested to raise UnsupportedError. A store whose native filters
are not complete is tested inside `layers.residual.Residual`, and bare for what it must refuse.

Each of the module's KNOWN_GAPS is a strict expected failure: the gap must name a test that exists, and a
gap that has closed fails until it is taken off the list. Generated tests follow Hypothesis' profile:
`--hypothesis-profile` with more `max_examples` searches longer.

It needs pytest and hypothesis: pip install nearest[testing].
"""

from __future__ import annotations

from nearest.errors import MissingDependency

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise MissingDependency("nearest.testing needs pytest and hypothesis; run: pip install nearest[testing]") from error

_PARTS = ("base", "records", "scanning", "searching", "lexical", "filtering", "generated", "lifecycle", "sequences")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from nearest.testing.suite import StoreSuite  # noqa: E402 -- after the rewriting of assertions is set up

__all__ = ["StoreSuite"]
