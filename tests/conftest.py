"""What all tests share: hypothesis profiles, and the data sets beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.took_part import (  # noqa: F401 -- hooks
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

# No deadlines: a shared machine pauses at will. On CI the examples are the same each time, so that a red build is
# about the change in it; elsewhere they differ, and `--hypothesis-profile thorough` looks for long.
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the checkout; the test is skipped where there is none."""
    if not _DATA.is_dir():
        pytest.skip("needs the data sets in ../shared/data, which are not part of the project")
    return _DATA
