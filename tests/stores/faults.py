"""What a store across a network keeps when the network fails: exactly what it acknowledged.

    report = faults.check(lambda port: f"mine://127.0.0.1:{port}/{name}", server_port, http=True)

Batches are written and deleted through `Retry(Timeout(store))` and a `Proxy` that follows a seeded plan of
faults. Of every record the scenario knows which states it may be in: after a call that was acknowledged
one, after one that failed also the one it asked for. It checks that against what a second connection finds
without the proxy, repeats what failed once the network is whole, and checks again: then every record has
one possible state. The collection must not exist before.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearest import stores
from nearest.contract import Record, Schema, Store, VectorSpec
from nearest.errors import BatchFailed, NearestError
from nearest.layers.retry import Retry
from nearest.layers.timeout import Timeout
from tests.stores.proxy import Direction, Fault, Proxy, Server

DIM = 4
IDS = [f"r{i:02}" for i in range(60)]
ATTEMPTS = 4
_BATCH = 20
_PAUSE = 0.05  # seconds, at most, that the scenario waits where the layer would wait longer

State = int | None
"""The version that a record has, None if it is not there."""


@dataclass
class Report:
    """What happened. faults: that took effect, by kind and direction. errors: of failed calls, by kind."""

    acknowledged: int = 0
    repeated: int = 0
    failed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


def check(
    url: Callable[[Server], str],
    server: Server,
    *,
    http: bool = False,
    seed: int = 0,
    steps: int = 60,
    seconds: float = 0.5,
    connect: Callable[[str, Schema | None], Store] = stores.connect,
) -> Report:
    """Runs the scenario; raises AssertionError where the store loses or invents something.

    url: a store's URL for a port, or for whatever `server` is. http: the proxy also answers 429 and 503 itself.
    seconds: the deadline of a call; the run takes about as long as `steps` of them.
    """
    schema = Schema({"dense": VectorSpec(DIM)})
    with (
        connect(url(server), schema) as direct,
        Proxy(server, http=http) as proxy,
        connect(url(proxy.port), None) as store,
    ):
        scenario = _Scenario(store, proxy, http, seed, seconds)
        for version in range(1, steps + 1):
            scenario.step(version)
        scenario.compare(direct)
        scenario.recover(steps + 1)
        scenario.compare(direct)
        report = scenario.report
    assert report.acknowledged, "no call was acknowledged: the faults were too many to learn anything"
    assert report.failed, "no call failed: the faults were too few to learn anything"
    assert report.repeated, "no call was repeated"
    return report


class _Scenario:
    def __init__(self, store: Store, proxy: Proxy, http: bool, seed: int, seconds: float) -> None:
        self.proxy = proxy
        self.http = http
        self.random = random.Random(seed)
        self.seconds = seconds
        self.report = Report()
        self.possible: dict[str, set[State]] = {i: {None} for i in IDS}
        self.left = 0  # attempts of this call that are to meet a fault
        self.doomed = False  # all of them
        self.fault: Fault | None = None
        self.bounded = Timeout(store, seconds)
        self.patient = Retry(self.bounded, attempts=ATTEMPTS, sleep=self._between, seed=seed)

    def step(self, version: int) -> None:
        self.left = self.random.choice([0, 1, 1, 2, ATTEMPTS])
        self.doomed = self.left == ATTEMPTS
        self._next_fault()
        ids = self.random.sample(IDS, self.random.randint(1, _BATCH))
        doing = self.random.random()
        if doing < 0.6:
            self._write(self.patient, ids, version)
        elif doing < 0.85:
            self._write(self.patient, ids, None)
        else:
            self._read(ids)
        self.left = 0
        self._settle_fault()

    def recover(self, version: int) -> None:
        """The network is whole again: what failed is repeated, and now acknowledged."""
        # With time for clients that wait on their own before they connect again.
        patient = Retry(self.bounded, attempts=50, base=0.2, longest=1.0, deadline=60.0)
        self.bounded._seconds = 30.0
        unsure = [i for i, states in self.possible.items() if len(states) > 1]
        deleted = [i for i in unsure if None in self.possible[i]]
        written = [i for i in unsure if i not in deleted]
        for ids, state in ((deleted, None), (written, version)):
            if ids:
                self._write(patient, ids, state)
        assert all(len(states) == 1 for states in self.possible.values()), "a call without faults failed"

    def compare(self, direct: Store) -> None:
        direct.wait()
        found = [(record.id, _state(record)) for record in direct.scan_all(with_vectors=True)]
        assert len(found) == len({i for i, _ in found}), f"a record twice among {found}"
        states: dict[str, State] = {**dict.fromkeys(IDS), **dict(found)}
        assert states.keys() == self.possible.keys(), f"records that nobody wrote: {states.keys() - self.possible}"
        wrong = {i: (state, self.possible[i]) for i, state in states.items() if state not in self.possible[i]}
        assert wrong == {}, f"id: (found, possible) {wrong}"
        assert direct.count() == len(found)
        assert {record.id: _version(record) for record in direct.get(IDS)} == dict(found)

    def _write(self, store: Store, ids: list[str], state: State) -> None:
        failed = set(ids)
        try:
            if state is None:
                store.delete(ids)
            else:
                store.upsert(Record(i, {"dense": _vector(i, state)}, {"version": state}) for i in ids)
            failed = set()
            self.report.acknowledged += 1
        except BatchFailed as error:
            failed = set(error.failed)
            self._count(error)
        except NearestError as error:
            self._count(error)
        for i in ids:
            self.possible[i] = self.possible[i] | {state} if i in failed else {state}

    def _read(self, ids: list[str]) -> None:
        try:
            found = {record.id: _state(record) for record in self.patient.get(ids, with_vectors=True)}
            self.report.acknowledged += 1
        except NearestError as error:
            self._count(error)
            return
        wrong = {i: found.get(i) for i in ids if found.get(i) not in self.possible[i]}
        assert wrong == {}, f"read by {ids}"

    def _count(self, error: NearestError) -> None:
        assert error.retryable, f"a fault of the network is told as final: {error.kind}: {error}"
        self.report.failed += 1
        self.report.errors[error.kind] += 1

    def _between(self, seconds: float) -> None:
        """In place of the pause between two attempts: the next one meets the next fault, or none."""
        self.report.repeated += 1
        time.sleep(min(seconds, _PAUSE))
        self._settle_fault()
        self._next_fault()

    def _next_fault(self) -> None:
        self.fault = None
        if self.left == 0:
            return
        self.left -= 1
        if self.http and self.random.random() < 0.2:
            # Times three, for clients that repeat by themselves.
            status = self.random.choice([429, 503])
            self.proxy.answer(status, retry_after=self.random.choice([None, 1]), times=3)
        elif self.random.random() < 0.1:
            self.proxy.refuse()
            self.report.faults["refuse"] += 1
        else:
            up_or_down: Direction = self.random.choice(["up", "down"])
            # Where all attempts are to fail, at once; else maybe in the middle, or after all is through.
            after = (
                0 if self.doomed else self.random.choice([0, self.random.randint(1, 300), self.random.randint(1, 3000)])
            )
            kinds = {
                Fault("reset", up_or_down, after): 8,
                Fault("cut", up_or_down, after): 4,
                Fault("stall", up_or_down, after): 2,
                # More than a deadline: the call is given up, and goes through when others have been acknowledged.
                Fault("delay", up_or_down, seconds=4 * self.seconds): 2,
                Fault("delay", up_or_down, seconds=0.1 * self.seconds): 0 if self.doomed else 2,
                Fault("reset", "connect"): 0 if self.doomed else 2,
            }
            (self.fault,) = self.random.choices(list(kinds), list(kinds.values()))
            self.proxy.arm(self.fault)

    def _settle_fault(self) -> None:
        if self.fault is not None and self.fault.fired.is_set():
            self.report.faults[f"{self.fault.kind} {self.fault.direction}"] += 1
        self.report.faults["answer"] = self.proxy.answered
        self.proxy.lift()


def _vector(record_id: str, version: int) -> Any:
    return np.random.default_rng([IDS.index(record_id), version]).normal(size=DIM).astype(np.float32)


def _version(record: Record) -> State:
    version: int = record.payload["version"]
    return version


def _state(record: Record) -> State:
    """The version, of which vector and payload must both be."""
    version = record.payload["version"]
    wanted = _vector(record.id, version)
    np.testing.assert_allclose(record.vectors["dense"], wanted / np.linalg.norm(wanted), rtol=1e-3, atol=1e-4)
    return _version(record)
