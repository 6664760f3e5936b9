"""Twenty kills in the normal tests; `make torture` does two hundred."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash import harness


def test_nothing_is_lost_double_half_served_or_orphaned(tmp_path: Path) -> None:
    seed = random.randrange(1000)
    torture = harness.run(20, seed, tmp_path)
    # Five calls or so complete before a kill on a quiet machine; far fewer would prove little.
    assert torture.acknowledged >= 10, f"seed {seed}: {torture.acknowledged} calls completed, too few to tell"
