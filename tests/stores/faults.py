"""What a store across a network keeps when the network fails: exactly what it acknowledged.

    report = faults.check(lambda port: f"mine://127.0.0.1:{port}/{name}", (server_port, "http"))

Batches are written and deleted through the store that `nearest.connect` gives, with its own repetitions and only
its waiting shortened, and a `Proxy` before each of the server's ports that follows a seeded plan of faults. Of every
record the scenario knows which states it may be in: after a call that was acknowledged one, after one that failed
also the one it asked for. It checks that against what a second connection finds without the proxy, repeats what
failed once the network is whole, and checks again: then every record has one possible state. The collection must
not exist before. `check_documents` asks the same of documents, through `nearest.open`.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import nearest
from nearest.contract import Document, Record, Schema, Store, VectorSpec
from nearest.errors import BatchFailed, NearestError
from nearest.layers import ATTEMPTS
from nearest.layers._wrapper import Layer
from nearest.layers.retry import Retry
from nearest.layers.timeout import Timeout
from tests.fakes import HashEmbedder, LineChunker
from tests.stores.proxy import Direction, Fault, Proxy, Server, Speaks

DIM = 4
IDS = [f"r{i:02}" for i in range(60)]
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
    url: Callable[..., str],
    *servers: tuple[Server, Speaks],
    seed: int = 0,
    steps: int = 60,
    seconds: float = 0.5,
    connect: Callable[[str, Schema | None], Store] = nearest.connect,
) -> Report:
    """Runs the scenario; raises AssertionError where the store loses or invents something.

    url: a store's URL for a port, or for whatever `Server` is, of each of the servers. servers: where the database
    listens, and what is spoken there: the proxy also answers in its place. seconds: the deadline of a call; the run
    takes about as long as `steps` of them.
    """
    schema = Schema({"dense": VectorSpec(DIM)})
    with (
        connect(url(*(server for server, _ in servers)), schema) as direct,
        _proxies(servers) as proxies,
        connect(url(*(proxy.port for proxy in proxies)), None) as store,
    ):
        plan = _Plan(proxies, store, seed, seconds)
        scenario = _Scenario(store, plan, lambda: connect(url(*(proxy.port for proxy in proxies)), None))
        scenario.begin()
        for version in range(1, steps + 1):
            scenario.step(version)
        scenario.compare(direct)
        scenario.recover(steps + 1)
        scenario.compare(direct)
        report = plan.report
    assert report.acknowledged, "no call was acknowledged: the faults were too many to learn anything"
    assert report.failed, "no call failed: the faults were too few to learn anything"
    assert report.repeated, "no call was repeated"
    return report


@contextlib.contextmanager
def _proxies(servers: tuple[tuple[Server, Speaks], ...]) -> Iterator[list[Proxy]]:
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(Proxy(server, speaks)) for server, speaks in servers]


L = TypeVar("L", bound=Layer)


def _layer(store: Store, kind: type[L]) -> L:
    assert isinstance(store, Layer), f"the store has no {kind.__name__}: is it declared `remote`?"
    return store if isinstance(store, kind) else _layer(store.inner, kind)


class _Plan:
    """Which faults a call meets, one an attempt. It takes the place of the pauses between a store's attempts."""

    def __init__(self, proxies: list[Proxy], store: Store, seed: int, seconds: float) -> None:
        self.proxies = proxies
        self.random = random.Random(seed)
        self.seconds = seconds
        self.report = Report()
        self.left = 0  # attempts of this call that are to meet a fault
        self.doomed = False  # all of them
        self.fault: Fault | None = None
        self.timeout = _layer(store, Timeout)
        self.retry = _layer(store, Retry)
        self.timeout._seconds = self.timeout._maintenance = seconds
        self.retry._sleep = self._between
        self.retry._random = random.Random(seed)

    def begin(self, left: int, opening: bool = False) -> None:
        self.left = left
        self.doomed = left == ATTEMPTS
        self._next_fault(opening)

    def end(self) -> None:
        self.left = 0
        self._settle_fault()

    def recover(self) -> None:
        """The network is whole again: calls have time for clients that wait on their own before they connect again."""
        self.timeout._seconds = self.timeout._maintenance = 30.0
        self.retry._attempts, self.retry._base, self.retry._longest = 50, 0.2, 1.0
        self.retry._sleep = time.sleep

    def count(self, error: NearestError) -> None:
        assert error.retryable, f"a fault of the network is told as final: {error.kind}: {error}"
        self.report.failed += 1
        self.report.errors[error.kind] += 1

    def _between(self, seconds: float) -> None:
        """In place of the pause between two attempts: the next one meets the next fault, or none."""
        self.report.repeated += 1
        time.sleep(min(seconds, _PAUSE))
        self._settle_fault()
        self._next_fault()

    def _next_fault(self, opening: bool = False) -> None:
        self.fault = None
        if self.left == 0:
            return
        self.left -= 1
        proxy = self.random.choice(self.proxies)
        if proxy.speaks != "bytes" and self.random.random() < 0.3:
            self.refuse(proxy)
        elif self.random.random() < 0.1 and not opening:
            proxy.refuse()
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
                Fault("stall", up_or_down, after): 0 if opening else 2,
                # More than a deadline: the call is given up, and goes through when others have been acknowledged.
                Fault("delay", up_or_down, seconds=4 * self.seconds): 0 if opening else 2,
                Fault("delay", up_or_down, seconds=0.1 * self.seconds): 0 if self.doomed else 2,
                Fault("reset", "connect"): 0 if self.doomed else 2,
            }
            (self.fault,) = self.random.choices(list(kinds), list(kinds.values()))
            proxy.arm(self.fault)

    def refuse(self, proxy: Proxy) -> None:
        """In the words of the server, if the proxy knows them."""
        match proxy.speaks:
            case "http":
                # Times three, for clients that repeat by themselves.
                proxy.answer(self.random.choice([429, 503]), retry_after=self.random.choice([None, 1]), times=3)
            case "grpc":
                proxy.answer(self.random.choice(["RESOURCE_EXHAUSTED", "UNAVAILABLE"]), times=3)
            case "postgresql":
                # An administrator restarts the server, which takes no connections for a while, or no more of them.
                proxy.answer("57P01", chosen=lambda method, _: method == "statement")
                refusal = self.random.choice(["57P03", "53300"])
                proxy.answer(refusal, chosen=lambda method, _: method == "startup", times=2)

    def _settle_fault(self) -> None:
        if self.fault is not None and self.fault.fired.is_set():
            self.report.faults[f"{self.fault.kind} {self.fault.direction}"] += 1
        for proxy in self.proxies:
            self.report.faults[f"answer {proxy.speaks}"] = proxy.answered
            proxy.lift()


class _Scenario:
    def __init__(self, store: Store, plan: _Plan, connect: Callable[[], Store]) -> None:
        self.store = store
        self.plan = plan
        self.connect = connect
        self.random = plan.random
        self.report = plan.report
        self.possible: dict[str, set[State]] = {i: {None} for i in IDS}

    def begin(self) -> None:
        """Whatever chance brings later: each server refuses once a call, and once to be opened."""
        for proxy in self.plan.proxies:
            for call in (partial(self._write, IDS[:5], 0), self._open):
                self.plan.refuse(proxy)
                call()
                self.plan.end()

    def step(self, version: int) -> None:
        doing = self.random.random()
        ids = self.random.sample(IDS, self.random.randint(1, _BATCH))
        if doing < 0.1:
            # Opening is repeated by nobody, and its deadlines are the client's own.
            self.plan.begin(self.random.choice([0, 1]), opening=True)
            self._open()
        else:
            self.plan.begin(self.random.choice([0, 1, 1, 2, ATTEMPTS]))
            if doing < 0.65:
                self._write(ids, version)
            elif doing < 0.9:
                self._write(ids, None)
            else:
                self._read(ids)
        self.plan.end()

    def recover(self, version: int) -> None:
        """What failed is repeated, and now acknowledged."""
        self.plan.recover()
        unsure = [i for i, states in self.possible.items() if len(states) > 1]
        deleted = [i for i in unsure if None in self.possible[i]]
        written = [i for i in unsure if i not in deleted]
        for ids, state in ((deleted, None), (written, version)):
            if ids:
                self._write(ids, state)
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

    def _write(self, ids: list[str], state: State) -> None:
        failed = set(ids)
        try:
            if state is None:
                self.store.delete(ids)
            else:
                self.store.upsert(Record(i, {"dense": _vector(i, state)}, {"version": state}) for i in ids)
            failed = set()
            self.report.acknowledged += 1
        except BatchFailed as error:
            failed = set(error.failed)
            self.plan.count(error)
        except NearestError as error:
            self.plan.count(error)
        for i in ids:
            self.possible[i] = self.possible[i] | {state} if i in failed else {state}

    def _read(self, ids: list[str]) -> None:
        try:
            found = {record.id: _state(record) for record in self.store.get(ids, with_vectors=True)}
            self.report.acknowledged += 1
        except NearestError as error:
            self.plan.count(error)
            return
        wrong = {i: found.get(i) for i in ids if found.get(i) not in self.possible[i]}
        assert wrong == {}, f"read by {ids}"

    def _open(self) -> None:
        try:
            with self.connect() as other:
                assert other.schema == self.store.schema
                self.report.acknowledged += 1
        except NearestError as error:
            self.plan.count(error)


def check_documents(
    url: Callable[..., str],
    *servers: tuple[Server, Speaks],
    ledger: Path,
    seed: int = 0,
    steps: int = 20,
    seconds: float = 0.5,
) -> Report:
    """The same of documents, which are added and deleted by `nearest.open`. ledger: a folder for it."""
    with _proxies(servers) as proxies:
        address = url(*(proxy.port for proxy in proxies))
        with nearest.open(address, embedder=HashEmbedder(DIM), chunker=LineChunker(), ledger=ledger) as kb:
            plan = _Plan(proxies, kb.store, seed, seconds)
            documents = _Documents(kb, plan)
            for version in range(1, steps + 1):
                documents.step(version)
            plan.recover()
            documents.compare()
            documents.repeat(steps + 1)
            documents.compare()
        # Of what a failed deletion left behind, the next to open it takes care.
        with (
            nearest.open(address, embedder=HashEmbedder(DIM), chunker=LineChunker(), ledger=ledger) as kb,
            nearest.connect(url(*(server for server, _ in servers))) as direct,
        ):
            documents.kb = kb
            documents.compare()
            kept = Counter(str(record.document_id) for record in direct.scan_all())
            wanted = {i: len(_lines(i, state)) for i, (state,) in documents.possible.items() if state is not None}
            assert kept == wanted, "chunks that belong to no document, or lack one"
        report = plan.report
    assert report.acknowledged, "no call was acknowledged: the faults were too many to learn anything"
    assert report.failed, "no call failed: the faults were too few to learn anything"
    return report


class _Documents:
    def __init__(self, kb: nearest.Collection, plan: _Plan) -> None:
        self.kb = kb
        self.plan = plan
        self.possible: dict[str, set[State]] = {i: {None} for i in IDS[:12]}

    def step(self, version: int) -> None:
        chosen = self.plan.random.sample(sorted(self.possible), self.plan.random.randint(1, 6))
        self.plan.begin(self.plan.random.choice([0, 1, 2, ATTEMPTS]))
        self._change(chosen, version if self.plan.random.random() < 0.8 else None)
        self.plan.end()

    def repeat(self, version: int) -> None:
        unsure = [i for i, states in self.possible.items() if len(states) > 1]
        self._change(unsure[::2], version)
        self._change(unsure[1::2], None)
        assert all(len(states) == 1 for states in self.possible.values()), "a call without faults failed"

    def compare(self) -> None:
        found: dict[str, set[str]] = {i: set() for i in self.possible}
        for record in self.kb.scan():
            found[str(record.document_id)].add(record.payload["text"].strip())
        for i, states in self.possible.items():
            assert found[i] in [set(_lines(i, state)) for state in states], (i, found[i], states)

    def _change(self, ids: list[str], state: State) -> None:
        failed = set(ids)
        try:
            if state is None:
                self.kb.delete(ids)
                failed = set()
            else:
                report = self.kb.add([Document(i, "\n".join(_lines(i, state))) for i in ids])
                failed = {failure.id for failure in report.failed}
            self.plan.report.acknowledged += 1
        except NearestError as error:
            self.plan.count(error)
        for i in ids:
            self.possible[i] = self.possible[i] | {state} if i in failed else {state}


def _lines(document_id: str, version: State) -> list[str]:
    """A chunk each; how many depends on the version."""
    return [] if version is None else [f"{document_id} {version} line {n}" for n in range(1 + version % 4)]


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
