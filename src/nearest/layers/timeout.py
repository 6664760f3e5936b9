"""A deadline for every call, whatever the client does: TimedOut.

Clients differ in what their timeouts cover (connecting, each read, a whole request, or nothing), so each call
runs in a worker thread and the caller waits for it no longer than its deadline. Python cannot stop a thread:
the call that was given up goes on and may still succeed, as a request does whose answer was lost. Repeating
it is safe. What would not be is a *later* write of the same records, which the late one could undo; such a
write waits until the abandoned one has ended, and is TimedOut itself if that takes too long.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from nearest.contract import Store
from nearest.errors import TimedOut
from nearest.layers._wrapper import Layer, Operation, P, T, id_of

_MAINTENANCE: frozenset[Operation] = frozenset({"optimize", "flush", "wait"})


class Timeout(Layer):
    """seconds: for reads and writes. maintenance: for optimize, flush, wait. threads: calls at once, at most.

    A call that finds all threads taken waits for one, within its deadline.
    """

    def __init__(self, inner: Store, seconds: float = 30.0, *, maintenance: float = 3600.0, threads: int = 16) -> None:
        super().__init__(inner)
        self._seconds = seconds
        self._maintenance = maintenance
        self._threads = threads
        self._workers = _Workers(threads)
        self._mutex = threading.Lock()
        self._abandoned: dict[concurrent.futures.Future[Any], tuple[Any, ...]] = {}  # writes, and what they write

    def _call(self, operation: Operation, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        seconds = self._maintenance if operation in _MAINTENANCE else self._seconds
        ends = time.monotonic() + seconds
        writes = operation in ("upsert", "delete", "delete_where")
        if writes and self._abandoned:
            with self._mutex:
                before = [future for future, other in self._abandoned.items() if _conflict(other, args)]
            if concurrent.futures.wait(before, seconds).not_done:
                raise TimedOut(
                    f"an earlier write of the same records timed out and has not ended after another {seconds:g} s; "
                    "repeat that one, or try again later",
                    seconds=seconds,
                )
        # The caller's context goes along, for what is kept there (traces, say).
        context = contextvars.copy_context()
        future = self._workers.submit(lambda: context.run(verb, *args, **kwargs))
        try:
            return future.result(ends - time.monotonic())
        except BaseException as error:  # Ctrl-C abandons a call too
            ended = future.done()
            if not ended and not future.cancel() and writes:
                self._abandon(future, args)
            if not isinstance(error, TimeoutError):
                raise
            if ended:  # an answer at the last moment, or the client's own TimeoutError
                return future.result()
            raise TimedOut(
                f"{operation} had no answer within {seconds:g} s; it may still be carried out, and can be repeated",
                operation=operation,
                seconds=seconds,
            ) from None

    def _abandon(self, future: concurrent.futures.Future[Any], args: tuple[Any, ...]) -> None:
        with self._mutex:
            self._abandoned[future] = args
        future.add_done_callback(self._forget)

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._mutex:
            self._abandoned.pop(future, None)

    def close(self) -> None:
        workers, self._workers = self._workers, _Workers(self._threads)
        workers.end()
        super().close()


def _conflict(abandoned: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    """Whether a write touches what an abandoned one touches. Its own repetition (the same list) may go on."""
    if abandoned[0] is args[0]:
        return False
    ours, theirs = _ids(args[0]), _ids(abandoned[0])
    return ours is None or theirs is None or not ours.isdisjoint(theirs)


def _ids(written: Any) -> set[str] | None:
    """None for a condition, which may be about any record."""
    if not isinstance(written, list):
        return None
    return {id_of(item) for item in written}


class _Workers:
    """Daemon threads, started as needed: unlike `ThreadPoolExecutor`'s, a stuck one lets the process end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._mutex = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((future, work))
        if not self._idle.acquire(blocking=False):
            with self._mutex:
                if self._started < self._most:
                    self._started += 1
                    threading.Thread(target=self._run, name="nearest-timeout", daemon=True).start()
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 -- handed to the caller, or nobody waits any more
                    future.set_exception(error)
            del job, future, work  # an idle thread keeps nothing alive
            self._idle.release()

    def end(self) -> None:
        for _ in range(self._started):
            self._jobs.put(None)
