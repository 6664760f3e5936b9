"""(f): peak memory of `kb.add` at 10,000 and at 100,000 documents, each in a process of its own.

The local model embeds, as for a user; the documents are short, so that it is over in minutes. What the store maps
(its files) is resident memory that the system takes back when it is needed; `anonymous` is the rest: the model,
the pipeline, the ledger, and what the engine keeps on its heap.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.common import table

SIZES = (10_000, 100_000)


def measure(size: int) -> None:
    """Runs in the child; prints peak resident, mapped and anonymous MiB."""
    import nearest

    names = ("VmRSS", "RssFile", "RssAnon")
    peaks = dict.fromkeys(names, 0)
    done = threading.Event()

    def look() -> None:
        for name in names:
            peaks[name] = max(peaks[name], _status(name))

    def watch() -> None:
        while not done.wait(0.02):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder, nearest.open(Path(folder) / "kb") as kb:
        kb.add(nearest.Document(f"d{i}", text(i), {"n": i}) for i in range(size))
        assert kb.count() == size
        look()  # building the index lets no other thread look
    done.set()
    watcher.join()
    print(*(peaks[name] >> 10 for name in names))


def text(i: int) -> str:
    return f"document {i} word{i % 1000} and its neighbours stand here"


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def run() -> None:
    if not Path("/proc/self/status").exists():
        print("\nmemory: needs /proc (Linux)")
        return
    rows = []
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.memory", str(size)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append((f"{size:,}", *map(int, child.stdout.split())))
    table(
        "memory: peak of one process that adds documents with the local model, MiB",
        ("documents", "resident", "of it mapped", "anonymous"),
        rows,
    )
    (*_, few), (*_, many) = rows
    print(f"  anonymous, {SIZES[1]:,} against {SIZES[0]:,} documents: {int(many) / int(few):.2f}x")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
