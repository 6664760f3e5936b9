"""Twenty kills in the normal tests; `make torture` does two hundred."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash import harness


def test_nothing_is_lost_double_half_served_or_orphaned(tmp_path: Path) -> None:
    seed = random.randrange(1000)
    torture = harness.run(20, seed, tmp_path)
    assert torture.acknowledged > 0, f"seed {seed}: no call completed, so nothing was told"
