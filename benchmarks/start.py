"""Wall time of the command line, whole processes: `nearest --help`, and `nearest search` on a collection."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import nearest
from benchmarks.common import abstracts, interleaved, table
from nearest.contract import Document

ROUNDS = 9


def run() -> None:
    command = str(Path(sys.executable).with_name("nearest"))
    with tempfile.TemporaryDirectory() as folder:
        where = str(Path(folder) / "kb")
        with nearest.open(where, chunker="whole") as kb:
            some = zip(abstracts(), range(300), strict=False)
            kb.add([Document(record["_id"], record["text"]) for record, _ in some], truncate=True)

        def call(*arguments: str) -> None:
            subprocess.run([command, *arguments], capture_output=True, check=True)

        medians = interleaved(
            {
                "python -c pass": lambda _: subprocess.run([sys.executable, "-c", "pass"], check=True),
                "nearest --help": lambda _: call("--help"),
                "nearest search": lambda _: call("search", "how do cells divide", "-c", where),
            },
            ROUNDS,
            warm=2,
        )
    table(f"start: medians of {ROUNDS}", ("command", "seconds"), [(n, f"{t:.2f}") for n, t in medians.items()])


if __name__ == "__main__":
    run()
