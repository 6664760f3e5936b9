"""What the benchmarks share: the machine's name, interleaved timing, real passages and their vectors."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
CACHE = ROOT / ".cache" / "bench"


def machine() -> str:
    """Processor, its matrix extensions, cores, Python."""
    model, flags = platform.processor(), ""
    if Path("/proc/cpuinfo").exists():
        info = Path("/proc/cpuinfo").read_text()
        model = next(iter(re.findall(r"model name\s*: (.*)", info)), model)
        flags = next(iter(re.findall(r"flags\s*: (.*)", info)), "")
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2") if name in flags.split()]
    extensions = " ".join(features) or "no vector extensions known"
    return f"{model}, {os.cpu_count()} cores, {extensions}, Python {platform.python_version()}"


def interleaved(
    calls: Mapping[str, Callable[[int], Any]], rounds: int, *, warm: int = 5, block: int = 1
) -> dict[str, float]:
    """Median seconds of each call; the sides take turns, so that drift of the machine hits all alike.

    block: calls a turn. With one, a side starts in the caches, and among the still running threads, of
    the side before; with more, and a pause before, as it does where it is the only one.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(0, rounds + warm, block):
        turn = i // block % len(names)
        for name in names[turn:] + names[:turn]:
            if block > 1:
                time.sleep(0.3)
            for at in range(i, i + block):
                started = time.perf_counter()
                calls[name](at)
                if at >= warm:
                    times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Plain columns, so that it can be pasted anywhere."""
    lines = [list(map(str, header)), *[list(map(str, row)) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


def abstracts() -> Iterator[dict[str, Any]]:
    """SciFact's records."""
    with (DATA / "scifact" / "corpus.jsonl").open() as lines:
        yield from map(json.loads, lines)


def sentences(limit: int = 60_000) -> list[str]:
    """Real passages: the sentences of SciFact's abstracts, then the paragraphs of the PEPs."""

    def every() -> Iterator[str]:
        for record in abstracts():
            yield from (
                record["metadata"]["sentences"]
                if isinstance(record["metadata"].get("sentences"), list)
                else (re.split(r"(?<=[.?!])\s+", record["text"]))
            )
        for path in sorted((DATA / "peps" / "files").glob("*.rst")):
            yield from path.read_text().split("\n\n")

    good = (text.strip() for text in every())
    return list(itertools.islice(dict.fromkeys(text for text in good if 30 <= len(text) <= 2000), limit))


def embedded(limit: int = 60_000) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The passages and their vectors by the local model, (n, 384); made once and kept in .cache."""
    import nearest

    texts = sentences(limit)
    kept = CACHE / f"sentences-{len(texts)}.npy"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"embedding {len(texts)} passages, once ...", flush=True)
        model = nearest.embedder("local:all-MiniLM-L6-v2")
        np.save(kept, model.embed_documents(texts, truncate=True))
    vectors: npt.NDArray[np.float32] = np.load(kept)
    return texts, vectors


def exact(vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int) -> list[set[int]]:
    """The k nearest of each query by brute force: what recall is measured against."""
    best = np.argpartition(-(queries @ vectors.T), k, axis=1)[:, :k]
    return [set(row.tolist()) for row in best]
