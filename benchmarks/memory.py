"""(f): peak memory of `kb.add` at 10,000 and at 100,000 documents, each in a process of its own.

The local model embeds, as for a user; the documents are short, so that it is over in minutes. What the store maps
(its files) is resident memory that the system takes back when it is needed; `anonymous` is the rest: the model,
the pipeline, the ledger, and what the engine keeps on its heap. How much that is, is seen in a third process, which
writes as many such records to the engine alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import table
from nearest.contract import Record

if TYPE_CHECKING:
    from nearest.contract import Store

SIZES = (10_000, 100_000)


def measure(size: int, alone: bool) -> None:
    """Runs in the child; prints peak resident, mapped and anonymous MiB, and the anonymous ones at the start."""
    import nearest

    names = ("VmRSS", "RssFile", "RssAnon")
    peaks = dict.fromkeys(names, 0)
    first = _status("RssAnon")
    done = threading.Event()

    def look() -> None:
        for name in names:
            peaks[name] = max(peaks[name], _status(name))

    def watch() -> None:
        while not done.wait(0.02):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/kb"
        with fill(place, size) if alone else nearest.open(place) as filled:
            if isinstance(filled, nearest.Collection):
                filled.add(nearest.Document(f"d{i}", text(i), {"n": i}) for i in range(size))
            assert filled.count() == size
            look()  # building the index lets no other thread look
    done.set()
    watcher.join()
    print(*(peaks[name] >> 10 for name in names), first >> 10)


def fill(folder: str, size: int) -> Store:
    """The records that adding the documents writes, but for their vectors, which are random."""
    import nearest

    schema = nearest.Schema({"dense": nearest.VectorSpec(384)}, text="text", fields={"first": "bool"})
    store = nearest.connect(f"edge:{folder}", schema)
    source = np.random.default_rng(0)
    for start in range(0, size, 256):
        vectors = source.normal(size=(256, 384)).astype(np.float32)
        store.upsert(
            Record(
                f"d{i}#0",
                {"dense": vectors[i - start]},
                {"document_id": f"d{i}", "chunk": 0, "first": True, "text": text(i), "start": 0, "metadata": {"n": i}},
            )
            for i in range(start, min(start + 256, size))
        )
    store.flush()
    store.optimize()
    return store


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
        told = [subprocess.run([*command, *how], capture_output=True, text=True, check=True) for how in ([], ["alone"])]
        (*whole, _), (*_, alone, first) = (map(int, child.stdout.split()) for child in told)
        rows.append((f"{size:,}", *whole, alone - first))
    table(
        "memory: peak of one process that adds documents with the local model, MiB",
        ("documents", "resident", "of it mapped", "anonymous", "of it the engine's"),
        rows,
    )
    (*_, few, few_engine), (*_, many, many_engine) = rows
    print(f"  {SIZES[1]:,} against {SIZES[0]:,} documents: anonymous {int(many) / int(few):.2f}x,", end=" ")
    print(f"without the engine's {(int(many) - int(many_engine)) / (int(few) - int(few_engine)):.2f}x")


if __name__ == "__main__":
    measure(int(sys.argv[1]), alone=sys.argv[2:] == ["alone"])
