"""(f): peak memory of adding 10,000 and 100,000 documents, each in a process of its own.

Vectors are made up, not computed by a model. `resident` holds the files that the store maps as well;
`anonymous` does not, but holds the engine's own indexes while it builds them, which grow with the corpus.
So the same records are also written to the store alone, and `ours` is the difference: the ledger, the
pipeline and its queues.
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
_BATCH = 256


def measure(what: str, size: int) -> None:
    """Runs in the child; prints peak resident and peak anonymous MiB."""
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        (add_to_collection if what == "collection" else add_to_store)(Path(folder), size)
    peak = max(peak, _status("RssAnon"))  # building the index lets no other thread look
    done.set()
    watcher.join()
    print(_status("VmHWM") >> 10, peak >> 10)


def text(i: int) -> str:
    return f"document {i} " + f"word{i % 1000} and its neighbours stand here " * 20


def add_to_collection(folder: Path, size: int) -> None:
    import nearest
    from tests.fakes import HashEmbedder

    model = HashEmbedder(384)
    model.embedded = _Nothing()  # it would grow itself
    with nearest.open(folder / "kb", embedder=model, chunker="whole") as kb:
        kb.add(nearest.Document(f"d{i}", text(i), {"n": i}) for i in range(size))
        assert kb.count() == size


def add_to_store(folder: Path, size: int) -> None:
    import nearest
    from tests.fakes import HashEmbedder

    model = HashEmbedder(384)
    model.embedded = _Nothing()
    schema = nearest.Schema({"dense": nearest.VectorSpec(384)}, text="text", fields={"chunk": "integer"})

    def batch(start: int) -> Iterator[nearest.Record]:
        rows = range(start, min(start + _BATCH, size))
        for i, vector in zip(rows, model.embed_documents([text(i) for i in rows]), strict=True):
            payload = {"document_id": f"d{i}", "chunk": 0, "start": 0, "text": text(i), "metadata": {"n": i}}
            yield nearest.Record(f"d{i}", {"dense": vector}, payload)

    with nearest.connect(f"edge:{folder / 'store'}", schema) as store:
        for start in range(0, size, _BATCH):
            store.upsert(batch(start))
            store.flush()
        store.optimize()
        assert store.count() == size


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
    rows = []
    ours = []
    for size in SIZES:
        peaks = []
        for what in ("collection", "store"):
            command = [sys.executable, "-m", "benchmarks.memory", what, str(size)]
            child = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append([int(number) for number in child.stdout.split()])
        (resident, anonymous), (_, alone) = peaks
        ours.append(anonymous - alone)
        rows.append((f"{size:,}", resident, anonymous, alone, ours[-1]))
    table(
        "memory: peak of one process that adds documents (384 dimensions), MiB",
        ("documents", "resident", "anonymous", "of it the store alone", "ours"),
        rows,
    )
    print(f"  ours, {SIZES[1]:,} against {SIZES[0]:,} documents: {ours[1] / max(ours[0], 1):.2f}x")


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
