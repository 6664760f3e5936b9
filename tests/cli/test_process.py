"""The program as a process: start-up, streams, signals, locks, and other people's embedders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest.errors import ModelError
from tests.cli import fake

ROOT = Path(__file__).parents[2]
DOCUMENTS = 1500  # six groups of the write path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which the fake embedder is installed, as a plugin."""
    plugin = tmp_path / "site" / "fake_embedder-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-embedder\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[nearest.embedders]\nfake = tests.cli.fake\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(DOCUMENTS):
        (folder / f"{i:04}.txt").write_text(f"document number {i} is about subject{i}")
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "nearest", *map(str, arguments)]


def run(environment: dict[str, str], cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def fill(location: Path, *texts: str) -> None:
    with nearest.open(location, embedder=fake.load("hash")) as kb:
        kb.add([nearest.Document(f"d{i}", text) for i, text in enumerate(texts)])


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"], ["serch"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = ["numpy", "sqlalchemy", "openvino", "tokenizers", "qdrant_edge", "rich.markdown", "nearest.app"]
    script = (
        "import sys\nfrom nearest.cli import main\n"
        f"main({arguments!r})\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_json_alone_is_on_stdout_of_every_command(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("text of a")
    for arguments, code in (
        (["add", "docs", "--embedder", "fake:hash"], 0),
        (["search", "text"], 0),
        (["get", "docs/a.txt"], 0),
        (["get", "nothing"], 1),
        (["info"], 0),
        (["rm", "docs/a.txt"], 0),
        (["stores"], 0),
        (["demo", "--only", "json", "--embedder", "fake:hash"], 0),
        (["eval", "docs"], 2),
        (["search", "text", "-c", "elsewhere"], 2),
        (["search"], 2),
        (["unknown"], 2),
    ):
        done = run(environment, tmp_path, *arguments, "--json")
        assert done.returncode == code, (arguments, done.stderr)
        assert json.loads(done.stdout), arguments
        assert ("error" in json.loads(done.stdout)) == (code != 0)


@contextmanager
def held(location: Path, environment: dict[str, str]) -> Iterator[None]:
    """A collection that another process has open."""
    script = (
        "import nearest, sys\nwith nearest.open(sys.argv[1]):\n    print('open', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(location)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            yield
        finally:
            holder.communicate()


def test_a_collection_that_another_process_has_open(environment: dict[str, str], tmp_path: Path) -> None:
    fill(tmp_path / ".nearest", "text")
    with held(tmp_path / ".nearest", environment):
        done = run(environment, tmp_path, "search", "text")
        assert (done.returncode, done.stdout) == (3, "")
        assert "open in another process" in done.stderr
        assert "Traceback" not in done.stderr
    assert run(environment, tmp_path, "search", "text").returncode == 0


def start(environment: dict[str, str], cwd: Path, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    # A shell that runs the tests in the background has them ignore SIGINT, and children inherit that.
    return subprocess.Popen(
        command(*arguments), cwd=cwd, env=environment, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **streams,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.usefixtures("docs")
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ("add", "docs", "--embedder", "fake:hash", "--json")
    slow = {**environment, "NEAREST_TEST_BATCH_SECONDS": "0.3"}
    stopped = start(slow, tmp_path, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert stopped.stderr is not None
    # When the fourth group is begun, three have been handed on, and a queue of two holds them: one is being written.
    for _ in range(4):
        assert stopped.stderr.readline() == f"{fake.BATCH}\n"
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 130
    assert json.loads(out)["error"]["kind"] == "Stopped"
    assert "run the same command again to go on" in err
    assert "Traceback" not in err

    there = json.loads(run(environment, tmp_path, "info", "--json").stdout)
    assert 0 < there["documents"] < DOCUMENTS
    assert there["repaired"] == []
    again = run(environment, tmp_path, *arguments)
    assert again.returncode == 0
    report = json.loads(again.stdout)
    assert report["unchanged"] == there["documents"]
    assert report["added"] == DOCUMENTS - there["documents"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.usefixtures("docs")
def test_progress_is_on_stderr_and_only_on_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    terminal = {**environment, "TERM": "xterm", "COLUMNS": "100"}
    process = start(
        terminal, tmp_path, "add", "docs", "--embedder", "fake:hash", "--json",
        stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out)["added"] == DOCUMENTS
    assert b"indexing" in shown
    assert f"{DOCUMENTS}/{DOCUMENTS}".encode() in shown

    piped = run(environment, tmp_path, "add", "docs", "--embedder", "fake:hash")
    assert "indexing" not in piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr


def test_a_reader_that_has_enough_is_no_error(environment: dict[str, str], tmp_path: Path) -> None:
    fill(tmp_path / ".nearest", *(f"text {i} " + "word " * 250 for i in range(300)))
    process = start(
        environment, tmp_path, "search", "text", "-k", "300", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert "Error" not in err
    assert "Exception" not in err


def test_a_terminal_without_unicode(environment: dict[str, str], tmp_path: Path) -> None:
    fill(tmp_path / ".nearest", "naïve — text")
    plain = {**environment, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    shown = run(plain, tmp_path, "search", "text", "--mode", "lexical")
    assert (shown.returncode, "na\\xefve" in shown.stdout) == (0, True)
    told = run(plain, tmp_path, "search", "text", "--mode", "lexical", "--json")
    assert json.loads(told.stdout)["hits"][0]["text"] == "naïve — text"


def test_what_a_crash_left_is_repaired_and_told(environment: dict[str, str], tmp_path: Path) -> None:
    fill(tmp_path / ".nearest", "text")
    with nearest.open(tmp_path / ".nearest") as kb:
        from nearest.ledger import Change

        kb.ledger.intend([Change("d9", "hash", ("00000000-0000-5000-8000-000000000000",), None, None)])
    done = run(environment, tmp_path, "info", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["repaired"]
    assert "nearest: after an interruption: undid 1 interrupted change" in done.stderr


def test_with_the_local_model(tmp_path: Path) -> None:
    try:
        nearest.embedder()
    except ModelError as error:
        pytest.skip(f"needs the default model: {error}")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "keys.md").write_text("Credentials must be rotated every month.")
    (folder / "food.md").write_text("The canteen serves lunch at noon.")
    environment = dict(os.environ)
    assert run(environment, tmp_path, "add", "docs").returncode == 0
    found = json.loads(run(environment, tmp_path, "search", "how often do passwords change?", "--json").stdout)
    assert found["hits"][0]["document_id"] == "docs/keys.md"
