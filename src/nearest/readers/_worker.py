"""The child process of `_isolated`: reads the files it is told of, one JSON line a job, one JSON line a result.

    in    {"reader": name, "path": ..., "id": ..., "passwords": [...], "seconds": a result, "total": for all}
    out   {"document": [id, text, metadata, [[start, page, headings], ...]]}  or  {"failure": [id, reason]}
          {"error": [kind, message]}  or  {"done": whether the worker is fit for another file}
          with "seconds": what it took

Started as `python -m nearest.readers._worker MEMORY`, in bytes. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nearest import plugins
from nearest.contract import Document, Failure, Reader
from nearest.errors import NearestError
from nearest.readers import _extra

MAX_TEXT = 64_000_000  # characters of one document


def main() -> None:
    memory = int(sys.argv[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes our input
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    _limit_memory(memory)
    for line in sys.stdin.buffer:
        job = json.loads(line)
        answers = _answers(job, memory)
        left = job["total"]
        while True:
            started = time.monotonic()
            _alarm(max(min(job["seconds"], left), 1e-3))
            answer = next(answers, None)
            _alarm(0)  # the time that the parent takes is its own
            took = time.monotonic() - started
            left -= took
            if answer is None:
                break
            _send(out, {**answer, "seconds": took})


def _answers(job: dict[str, Any], memory: int) -> Iterator[dict[str, Any]]:
    try:
        reader: Reader = plugins.load("readers", job["reader"]).READER()
        reader.passwords = tuple(job["passwords"])
        for result in reader.read(Path(job["path"]), job["id"]):
            yield _json(result)
        yield {"done": _used() < memory // 3}
    except MemoryError:
        reason = f"needs more than {memory / (1 << 30):.3g} GiB of memory to be read; split it"
        yield {"failure": [job["id"], reason]}
        yield {"done": False}
    except Exception as error:  # noqa: BLE001 -- see `reason`
        yield {"error": [error.kind if isinstance(error, NearestError) else "Unreadable", _extra.reason(error)]}


def _json(result: Document | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"failure": [result.id, result.reason]}
    if len(result.text) > MAX_TEXT:
        return {"failure": [result.id, f"has over {MAX_TEXT // 1_000_000} million characters of text; split it"]}
    marks = [[mark.start, mark.page, mark.headings] for mark in result.marks]
    return {"document": [result.id, result.text, dict(result.metadata), marks]}


def _send(out: BinaryIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


def _alarm(seconds: float) -> None:
    """Without a handler the alarm ends the process, wherever it is: in Python, in C, or waiting."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    with contextlib.suppress(ValueError, OSError):  # macOS has the call, not the limit
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _used() -> int:
    """The most memory that this process held, in bytes; a worker that grew is replaced."""
    with contextlib.suppress(OSError):  # Linux keeps ru_maxrss over exec: it would be that of a large parent
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
