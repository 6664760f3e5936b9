"""Chroma, embedded and as a server: the conformance suite on both, and what is its own."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nearest import stores
from nearest.contract import Schema, Store
from nearest.stores import chroma
from nearest.testing import StoreSuite
from nearest.testing.base import Make, Reopen


class Remembers(StoreSuite):
    """Stores by URL, so that one that was closed can be opened again."""

    @pytest.fixture
    def places(self) -> dict[int, str]:
        return {}

    @pytest.fixture
    def fresh(self) -> Iterator[str]:
        """URLs of collections that are not there yet."""
        raise NotImplementedError

    @pytest.fixture
    def make(self, fresh: Iterator[str], places: dict[int, str]) -> Make:
        def new(schema: Schema) -> Store:
            url = next(fresh)
            store = stores.connect(url, schema)
            places[id(store)] = url
            return store

        return new

    @pytest.fixture
    def reopen(self, places: dict[int, str]) -> Reopen:
        def again(store: Store, schema: Schema | None) -> Store:
            url = places[id(store)]
            opened = stores.connect(url, schema)
            places[id(opened)] = url
            return opened

        return again


class TestChromaFolder(Remembers):
    module = chroma

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Iterator[str]:
        return (f"chroma:{tmp_path}/collection-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`chroma run` on a free port: its address, chroma://127.0.0.1:port."""
    folder = tmp_path_factory.mktemp("chroma")
    run = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run", "--path", str(folder)]
    for _ in range(3):  # another process may take the port first
        port = free_port()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*run, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
        try:
            if answers(process, f"http://127.0.0.1:{port}/api/v2/heartbeat"):
                yield f"chroma://127.0.0.1:{port}"
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail(f"chroma run did not start: {(folder / 'log').read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return True
        except httpx.TransportError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return False
    return False


class TestChromaServer(Remembers):
    module = chroma

    @pytest.fixture
    def fresh(self, server: str) -> Iterator[str]:
        return (f"{server}/{uuid.uuid4()}" for _ in itertools.count())
