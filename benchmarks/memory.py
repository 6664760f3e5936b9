"""(f): peak memory of adding 10,000 and 100,000 documents, each in a process of its own.

Vectors are given, not computed, so that what grows with the corpus would be ours. `anonymous` leaves out the
files that the store maps (VmHWM less RssFile at the end is not the peak, so RssAnon is sampled).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import table

SIZES = (10_000, 100_000)


def measure(size: int) -> None:
    """Runs in the child; prints peak resident and peak anonymous MiB."""
    import nearest
    from nearest.contract import Document
    from tests.fakes import HashEmbedder

    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, _status("RssAnon"))

    def documents() -> Iterator[Document]:
        for i in range(size):
            yield Document(f"d{i}", f"document {i} " + f"word{i % 1000} and its neighbours stand here " * 20, {"n": i})

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        model = HashEmbedder(384)
        model.embedded = _Nothing()  # it would grow itself
        with nearest.open(Path(folder) / "kb", embedder=model, chunker="whole") as kb:
            kb.add(documents())
            assert kb.count() == size
    done.set()
    watcher.join()
    print(_status("VmHWM") >> 10, peak >> 10)


class _Nothing(list[str]):
    def __iadd__(self, other: object) -> _Nothing:  # type: ignore[override,misc]
        return self


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def run() -> None:
    if not Path("/proc/self/status").exists():
        print("\nmemory: needs /proc (Linux)")
        return
    peaks = []
    for size in SIZES:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(size)], capture_output=True, text=True, check=True
        )
        peaks.append(tuple(map(int, child.stdout.split())))
    (all_small, anon_small), (all_large, anon_large) = peaks
    table(
        "memory: peak of one process that adds documents (384 dimensions)",
        ("documents", "resident MiB", "anonymous MiB"),
        [
            (SIZES[0], all_small, anon_small),
            (SIZES[1], all_large, anon_large),
            ("ratio", f"{all_large / all_small:.2f}x", f"{anon_large / anon_small:.2f}x"),
        ],
    )


if __name__ == "__main__":
    measure(int(sys.argv[1]))
