"""What a part needs is what its extra installs, and what the tests install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nearest import plugins

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, set[str]] = {
    name: {re.sub(r"\[.*?\]", "", each) for each in packages}
    for name, packages in PROJECT["optional-dependencies"].items()
}
OWN = set(PROJECT["dependencies"])


def required(room: plugins.Room) -> dict[str, set[str]]:
    return {
        name: {re.sub(r"\[.*?\]", "", f"{package}{version}") for package, version in module.REQUIRES.items()} - OWN
        for name, module in plugins.load_all(room).items()
        if hasattr(module, "REQUIRES")
    }


@pytest.mark.parametrize("room", ["stores", "embedders", "generators", "rerankers"])
def test_an_extra_is_named_after_its_part(room: plugins.Room) -> None:
    """The file's name, with - for _; `llm` speaks through another part's client."""
    for name, packages in required(room).items():
        if packages and name != "llm":
            assert EXTRAS[name.replace("_", "-")] == packages, name


def test_one_extra_reads_every_format() -> None:
    needed = set().union(*required("readers").values())
    assert needed <= EXTRAS["readers"]
