"""What the pages say works: their Python runs, their commands exit with 0, their tables are true."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import docs

LANGUAGES = {"python", "console", "bash", "sh"}
RUNNABLE = [page for page in docs.pages() if any(b.language in LANGUAGES for b in docs.blocks(page.read_text()))]


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the pages to work on, and no network."""
    for page in docs.pages():
        copy = tmp_path / page.relative_to(docs.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"an example connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    return tmp_path


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(docs.ROOT)))
def test_examples_run(page: Path, somewhere: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in docs.blocks(page.read_text()):
        if block.shown_only:
            continue
        if block.language == "python":
            # Blank lines in front, so that a traceback shows the page's own line numbers.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        elif block.language in LANGUAGES:
            for command in block.commands():
                done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=False)
                where = f"{page.name}, block at line {block.line}: {command}"
                assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"


def test_links_lead_somewhere_and_generated_parts_are_current() -> None:
    assert docs.problems() == []


def test_blocks_and_commands_are_found() -> None:
    page = "\n".join(
        [
            "```python", "x = 1", "```",
            "```console", "$ nearest add \\", "    docs", "3 added", "$ nearest serve  # not run", "```",
            "```bash", "pip install nearest", "KEY=1 nearest search cats | head", "nearestneighbour", "```",
            "```python", "# not run: needs a server", "y", "```",
        ]
    )  # fmt: skip
    found = docs.blocks(page)
    assert [(b.language, b.line) for b in found] == [("python", 2), ("console", 5), ("bash", 11), ("python", 16)]
    assert list(found[1].commands()) == ["nearest add      docs"]
    assert list(found[2].commands()) == ["KEY=1 nearest search cats | head"]
    assert [b.shown_only for b in found] == [False, False, False, True]


def test_generated_parts_are_replaced_and_unknown_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(docs.GENERATORS, "now", lambda: "new\n")
    assert docs.regenerated("a\n<!-- generated: now -->\nold\n<!-- end -->\nb") == (
        "a\n<!-- generated: now -->\nnew\n<!-- end -->\nb"
    )
    with pytest.raises(KeyError, match="never"):
        docs.regenerated("<!-- generated: never -->\n<!-- end -->")


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The end\n[a](page.md#the-end) [b](gone.md) [c](#nowhere) [d](https://example.org/x)\n")
    assert list(docs.broken_links(page)) == [
        "link to gone.md: no such file",
        "link to #nowhere: no such heading",
    ]
