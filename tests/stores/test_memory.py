"""The memory store: the conformance suite, and what holds for the reference alone."""

from __future__ import annotations

import pytest

from nearest.contract import StoreURL
from nearest.stores import memory
from nearest.testing import StoreSuite
from nearest.testing.base import Make


class TestMemory(StoreSuite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        return lambda schema: memory.connect(StoreURL.parse("memory:"), schema)
