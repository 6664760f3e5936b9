"""Reading in a child process: a parser that loops, crashes or grows costs its own file, and nothing else.

A reader that declares `isolated` runs in a worker (`_worker`), which is kept for the files after. It has a time
limit by the size of the file for each document that it gives, and a limit of memory; past either the worker ends,
the file is Unreadable with the reason, and the next file gets a new worker. The limits are the kernel's (an alarm
and RLIMIT_AS): where there are none (Windows; macOS keeps no limit of memory) a bad file still cannot crash the
caller.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearest import errors
from nearest.contract import Document, Failure, Mark, Reader
from nearest.errors import NearestError, Unreadable

MEMORY = 3 << 30  # bytes of address space of a worker, libraries included
SECONDS = 30.0  # for a document of a small file
SECONDS_A_MIB = 20.0
MOST_SECONDS = 900.0
TOTAL = 20  # times that, for all documents of a file
AHEAD = max(1, min(4, (os.cpu_count() or 2) // 2))  # workers that may run ahead of the one that is waited for


class Isolated(Reader):
    """Another reader, by its name, in a worker. `seconds` and `memory` (bytes): instead of the limits above."""

    def __init__(self, name: str, reader: type[Reader], seconds: float | None = None, memory: int = MEMORY) -> None:
        self.name = name
        self.content_type = reader.content_type
        self._seconds = seconds
        self._memory = memory

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """Parsing starts at once where a worker is idle, while the caller is still busy with other files."""
        results = self._results(path, document_id)
        next(results)
        return results

    def _results(self, path: Path, document_id: str) -> Iterator[Any]:
        try:
            size = path.stat().st_size
        except OSError:
            size = 0  # the reader will say why
        seconds = self._seconds or min(SECONDS + SECONDS_A_MIB * size / (1 << 20), MOST_SECONDS)
        job = {
            "reader": self.name,
            "path": str(path.absolute()),
            "id": document_id,
            "passwords": list(self.passwords),
            "seconds": seconds,
            "total": TOTAL * seconds if seconds < MOST_SECONDS else TOTAL * SECONDS_A_MIB * size / (1 << 20),
        }
        worker = _pool.take_ahead(self._memory)
        reusable = False
        try:
            if worker is not None:
                worker.send(job)
            yield None
            if worker is None:
                worker = _pool.take(self._memory)
                worker.send(job)
            while True:
                answer = worker.receive(seconds)
                self.elsewhere += answer["seconds"]
                match answer:
                    case {"document": [name, text, metadata, marks]}:
                        made = tuple(Mark(start, page, tuple(headings)) for start, page, headings in marks)
                        yield Document(name, text, metadata, made)
                    case {"failure": [name, reason]}:
                        yield Failure(name, reason)
                    case {"error": [kind, message]}:
                        reusable = True
                        error: type[NearestError] = getattr(errors, kind, Unreadable)
                        raise error(message)
                    case {"done": fine}:
                        reusable = fine
                        return
        finally:
            if worker is not None:
                _pool.give(worker, reusable=reusable)


class _Worker:
    def __init__(self, memory: int) -> None:
        self.memory = memory
        # -P: no module is taken from the folder that the caller happens to be in.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nearest.readers._worker", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, job: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):  # it has ended; `receive` tells why
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()

    def receive(self, seconds: float) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:
            raise Unreadable(f"took over {seconds:.3g} s to read; it may be damaged, or made to keep a parser busy")
        what = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise Unreadable(f"the parser crashed ({what}); the file may be damaged")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                pipe.close()


class _Pool:
    """Idle workers, and how many are at work."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy = 0

    def take_ahead(self, memory: int) -> _Worker | None:
        """A worker, or None if enough of them run ahead."""
        with self._mutex:
            if self._busy >= AHEAD:
                return None
        return self.take(memory)

    def take(self, memory: int) -> _Worker:
        """A worker, started if none is idle: the file that is waited for never waits for those behind it."""
        with self._mutex:
            self._busy += 1
            for worker in [worker for worker in self._idle if worker.memory == memory]:
                self._idle.remove(worker)
                if worker.alive:
                    return worker
                worker.end()
        return _Worker(memory)

    def give(self, worker: _Worker, *, reusable: bool) -> None:
        with self._mutex:
            self._busy -= 1
            if reusable and len(self._idle) < AHEAD:
                self._idle.append(worker)
                return
        worker.end()

    def close(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def forget(self) -> None:
        """After a fork the workers are the parent's."""
        self.__init__()  # type: ignore[misc]


_pool = _Pool()
atexit.register(_pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)
