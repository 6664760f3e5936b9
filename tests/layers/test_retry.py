"""What is repeated, how often, after which pauses, and what is raised in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from nearest import layers
from nearest.contract import Record, Schema, Store, VectorSpec
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    ConnectionFailed,
    InvalidRecord,
    NearestError,
    StorageError,
    Throttled,
    TimedOut,
)
from nearest.layers.retry import Retry
from nearest.stores.memory import MemoryStore, _Collection

SCHEMA = Schema(vectors={"dense": VectorSpec(2)})


class Scripted(MemoryStore):
    """Raises the errors of its script, one a call; a BatchFailed lets the other records through."""

    def __init__(self, *errors: NearestError | None) -> None:
        super().__init__(_Collection(SCHEMA))
        self.errors = iter(errors)
        self.asked: list[list[str]] = []

    def _upsert(self, records: list[Record]) -> None:
        self.asked.append([record.id for record in records])
        failed: Any = self._next()
        if done := [record for record in records if record.id not in failed]:
            super()._upsert(done)
        self._raise()

    def _delete(self, ids: list[str]) -> None:
        self.asked.append(ids)
        failed: Any = self._next()
        super()._delete([i for i in ids if i not in failed])
        self._raise()

    def _count(self, where: Any) -> int:
        self.asked.append([])
        self._next()
        self._raise()
        return super()._count(where)

    def _next(self) -> dict[str, NearestError]:
        self.error = next(self.errors, None)
        if self.error is not None and not isinstance(self.error, BatchFailed):
            raise self.error
        return {} if self.error is None else self.error.failed

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def retry(store: Scripted, time: Time | None = None, **settings: Any) -> Retry:
    time = time or Time()
    return Retry(store, sleep=time.sleep, clock=time, seed=1, **settings)


def records(ids: str) -> list[Record]:
    return [Record(i, {"dense": [1.0, float(n + 1)]}) for n, i in enumerate(ids)]


def test_what_can_pass_is_repeated() -> None:
    store = Scripted(ConnectionFailed("a"), TimedOut("b"), Throttled("c"))
    layer = retry(store)
    assert layer.count() == 0
    assert len(store.asked) == 4


@pytest.mark.parametrize("error", [AccessDenied("no"), StorageError("no"), InvalidRecord("no")], ids=lambda e: e.kind)
def test_what_was_refused_for_good_is_not(error: NearestError) -> None:
    verbs: list[Callable[[Retry], Any]] = [Retry.count, lambda s: s.upsert(records("a")), lambda s: s.delete(["a"])]
    for verb in verbs:
        store = Scripted(error)
        with pytest.raises(type(error)) as raised:
            verb(retry(store))
        assert raised.value is error
        assert (len(store.asked), error.context["attempts"]) == (1, 1)


def test_attempts_end() -> None:
    errors = [ConnectionFailed(str(i)) for i in range(9)]
    verbs: list[Callable[[Retry], Any]] = [Retry.count, lambda s: s.upsert(records("a")), lambda s: s.delete(["a"])]
    for verb in verbs:
        store = Scripted(*errors)
        with pytest.raises(ConnectionFailed, match="3") as raised:
            verb(retry(store, attempts=4))
        assert (len(store.asked), raised.value.context["attempts"]) == (4, 4)


def test_the_deadline_ends_it_without_a_pause_that_would_be_in_vain() -> None:
    time = Time()
    store = Scripted(*(ConnectionFailed("x") for _ in range(1000)))
    with pytest.raises(ConnectionFailed):
        retry(store, time, attempts=1000, deadline=30.0, longest=5.0).count()
    assert 25.0 - 1e-9 <= time.now <= 30.0
    assert len(store.asked) == len(time.pauses) + 1


def test_pauses_are_drawn_below_a_bound_that_doubles() -> None:
    drawn: list[list[float]] = []
    for seed in range(200):
        time = Time()
        store = Scripted(*(ConnectionFailed("x") for _ in range(6)))
        Retry(store, attempts=7, base=1.0, longest=8.0, sleep=time.sleep, clock=time, seed=seed).count()
        drawn.append(time.pauses)
    for pauses, bound in zip(zip(*drawn, strict=True), (1.0, 2.0, 4.0, 8.0, 8.0, 8.0), strict=True):
        assert 0 <= min(pauses) < 0.1 * bound
        assert 0.9 * bound < max(pauses) <= bound


def test_a_database_says_when_to_come_back() -> None:
    time = Time()
    retry(Scripted(Throttled("x", retry_after=7.0)), time, base=1.0).count()
    assert 7.0 < time.now <= 8.0
    batch = BatchFailed("x", {"a": Throttled("x", retry_after=3), "b": Throttled("x", retry_after=5.5)})
    time = Time()
    retry(Scripted(batch), time, base=1.0).upsert(records("ab"))
    assert 5.5 < time.now <= 6.5
    store = Scripted(Throttled("x", retry_after=3600.0))
    with pytest.raises(Throttled):
        retry(store, time, deadline=60.0).count()
    assert len(store.asked) == 1


def test_a_call_across_a_network_that_had_no_answer_is_repeated() -> None:
    time = Time()

    class Stalled(Scripted):
        capabilities = replace(MemoryStore.capabilities, remote=True)

        def _next(self) -> dict[str, NearestError]:
            time.now += layers.SECONDS  # as long as an attempt may take
            return super()._next()

    def layered(store: Store) -> Store:
        made = layers.stack_for(store)
        retry: Any = made
        while not isinstance(retry, Retry):
            retry = retry.inner
        retry._sleep, retry._clock = time.sleep, time
        return made

    errors = [TimedOut(str(i)) for i in range(9)]
    store = Stalled(*errors[:2])
    assert layered(store).count() == 0
    assert len(store.asked) == 3
    time.now, store = 0.0, Stalled(*errors)
    with pytest.raises(TimedOut) as raised:
        layered(store).count()
    # None begins after two and a half deadlines: a caller does not wait for all six.
    assert (len(store.asked), raised.value.context["attempts"]) == (3, 3)
    assert time.now < 3.5 * layers.SECONDS


def _writes() -> Iterator[tuple[str, Callable[[Retry], Any]]]:
    yield "upsert", lambda store: store.upsert(records("abcde"))
    yield "delete", lambda store: store.delete("abcde"[i] for i in range(5))


@pytest.mark.parametrize("verb", [verb for _, verb in _writes()], ids=[name for name, _ in _writes()])
class TestBatches:
    def test_only_what_can_pass_is_repeated(self, verb: Callable[[Retry], Any]) -> None:
        refused = InvalidRecord("too long")
        store = Scripted(
            BatchFailed("x", {"d": ConnectionFailed("x"), "b": refused, "a": Throttled("x")}),
            BatchFailed("x", {"d": ConnectionFailed("x")}),
        )
        with pytest.raises(BatchFailed, match="1 of 5 records failed; the first is 'b': too long") as raised:
            verb(retry(store))
        assert store.asked == [list("abcde"), ["a", "d"], ["d"]]
        assert raised.value.failed == {"b": refused}
        assert (raised.value.retryable, raised.value.context["attempts"]) == (False, 3)

    def test_all_succeed_in_the_end(self, verb: Callable[[Retry], Any]) -> None:
        failing = BatchFailed("x", {"c": TimedOut("x")})
        store = Scripted(failing, ConnectionFailed("x"), failing)
        verb(retry(store))
        assert store.asked == [list("abcde"), ["c"], ["c"], ["c"]]

    def test_all_that_are_left_are_told(self, verb: Callable[[Retry], Any]) -> None:
        refused, last = InvalidRecord("too long"), ConnectionFailed("gone")
        store = Scripted(BatchFailed("x", {"d": TimedOut("x"), "e": refused, "b": TimedOut("x")}), last, last)
        with pytest.raises(BatchFailed) as raised:
            verb(retry(store, attempts=3))
        assert list(raised.value.failed.items()) == [("b", last), ("d", last), ("e", refused)]
        assert raised.value.retryable

    def test_an_error_for_good_after_a_part_was_done(self, verb: Callable[[Retry], Any]) -> None:
        denied = AccessDenied("the token has expired")
        store = Scripted(BatchFailed("x", {"b": TimedOut("x")}), denied)
        with pytest.raises(BatchFailed, match="expired") as raised:
            verb(retry(store))
        assert (raised.value.failed, raised.value.retryable) == ({"b": denied}, False)

    def test_nothing_that_can_pass(self, verb: Callable[[Retry], Any]) -> None:
        store = Scripted(BatchFailed("x", {"b": InvalidRecord("too long")}))
        with pytest.raises(BatchFailed):
            verb(retry(store))
        assert len(store.asked) == 1


def test_an_upsert_of_several_batches_writes_all_others() -> None:
    """What BatchFailed promises of a call holds where the call is cut into batches."""

    class Small(Scripted):
        capabilities = replace(MemoryStore.capabilities, max_batch=2)

    store = Small(BatchFailed("x", {"a": InvalidRecord("no")}), None, BatchFailed("x", {"e": InvalidRecord("no")}))
    with pytest.raises(BatchFailed, match="2 of 5") as raised:
        store.upsert(records("abcde"))
    assert store.asked == [["a", "b"], ["c", "d"], ["e"]]
    assert list(raised.value.failed) == ["a", "e"]
    assert [record.id for record in store.scan_all()] == ["b", "c", "d"]
