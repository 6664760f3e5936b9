"""Every store across a network, behind a proxy that delays, resets, refuses, throttles and cuts in the middle.

After recovery exactly the acknowledged records are there; `faults.check` says how that is told. `FAULT_STEPS` in
the environment makes it longer.
"""

from __future__ import annotations

import importlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock, patch
from urllib.parse import quote

import numpy as np
import pytest

import nearest
from nearest.contract import Dense, Query, Schema, VectorSpec
from nearest.errors import ConnectionFailed
from nearest.layers.retry import Retry
from nearest.stores._grpc import Reach
from tests.stores import faults
from tests.stores.postgres import Postgres, postgres  # noqa: F401 -- a fixture
from tests.stores.proxy import Proxy, Server, Speaks
from tests.stores.qdrant_double import Double, serving_grpc
from tests.stores.test_chroma import running
from tests.stores.test_milvus import server as milvus_server  # noqa: F401 -- a fixture
from tests.stores.weaviate_double import Double as Weaviate
from tests.stores.weaviate_double import serving

STEPS = int(os.environ.get("FAULT_STEPS", "25"))


def check(url: Callable[..., str], *servers: tuple[Server, Speaks]) -> None:
    report = faults.check(url, *servers, steps=STEPS, seed=1)
    assert sum(report.faults.values()) >= STEPS // 5, report.faults
    for _, speaks in servers:
        assert report.faults[f"answer {speaks}"], report.faults


def moved(url: str, port: int) -> Callable[[Server], str]:
    """The URL with another port in place of one."""
    assert f":{port}" in url
    return lambda other: url.replace(f":{port}", f":{other}")


def port_of(url: str) -> int:
    return int(url.partition("127.0.0.1:")[2].partition("/")[0])


@pytest.mark.filterwarnings("ignore:Local mode", "ignore:Payload indexes have no effect")
def test_documents_on_qdrant_over_grpc(tmp_path: Path) -> None:
    with serving_grpc(Double()) as double:
        faults.check_documents(
            lambda port: f"qdrant://127.0.0.1:1/documents?grpc=true&grpc_port={port}",
            (double.port, "grpc"),
            ledger=tmp_path,
            steps=STEPS,
        )


def test_documents_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:  # noqa: F811
    url = postgresql(postgres)
    faults.check_documents(url, (f"{postgres.socket}/.s.PGSQL.5432", "postgresql"), ledger=tmp_path, steps=STEPS)


@pytest.mark.parametrize("name", ["pinecone", "qdrant"])
def test_over_http(name: str, tmp_path: Path) -> None:
    with importlib.import_module(f"benchmarks.stores.{name}").serve(tmp_path) as url:
        port = port_of(url)
        check(moved(url, port), (port, "http"))


@pytest.mark.filterwarnings("ignore:Local mode")
def test_qdrant_over_grpc() -> None:
    with serving_grpc(Double()) as double:
        check(lambda port: f"qdrant://127.0.0.1:1/faults?grpc=true&grpc_port={port}", (double.port, "grpc"))


def test_chroma(tmp_path: Path) -> None:
    with running(tmp_path) as (address, _):
        port = port_of(f"{address}/")
        check(moved(f"{address}/{uuid.uuid4()}", port), (port, "http"))


def test_weaviate() -> None:
    with serving(Weaviate()) as double:
        check(
            lambda rest, grpc: f"weaviate://127.0.0.1:{rest}/Faults?grpc={grpc}",
            (double.port, "http"),
            (double.grpc_port, "grpc"),
        )


def test_milvus(milvus_server: str) -> None:  # noqa: F811
    url = f"{milvus_server}/faults"
    check(moved(url, port_of(url)), (port_of(url), "grpc"))


def postgresql(postgres: Postgres) -> Callable[[Server], str]:  # noqa: F811
    """URLs of a fresh database."""
    database = postgres.database()

    def url(server: Server) -> str:
        if isinstance(server, int):
            return f"postgresql://postgres@127.0.0.1:{server}/{database}?sslmode=disable&connect_timeout=2"
        return f"postgresql://postgres@/{database}?host={quote(postgres.socket, safe='')}"

    return url


def test_postgresql(postgres: Postgres) -> None:  # noqa: F811
    check(postgresql(postgres), (f"{postgres.socket}/.s.PGSQL.5432", "postgresql"))


@pytest.fixture(params=["milvus", "qdrant", "weaviate"])
def over_grpc(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A port where a store's server speaks gRPC, and the store's URL for such a port."""
    if request.param == "milvus":
        yield port_of(f"{request.getfixturevalue('milvus_server')}/"), "milvus://127.0.0.1:{}/back"
    elif request.param == "qdrant":
        with serving_grpc(Double()) as qdrant:
            yield qdrant.port, "qdrant://127.0.0.1:1/back?grpc=true&grpc_port={}"
    else:
        with serving(Weaviate()) as weaviate:
            yield weaviate.grpc_port, f"weaviate://127.0.0.1:{weaviate.port}/Back?grpc={{}}"


@pytest.mark.filterwarnings("ignore:Local mode")
def test_a_server_that_is_back_is_soon_found_over_grpc(over_grpc: tuple[int, str]) -> None:
    """Left to itself gRPC tries again after a second, then more and more seldom, and fails all calls between.

    And it looks only every 5 s whether it is time, unless somebody waits, or serves, as our doubles do.
    """
    port, url = over_grpc
    with (
        patch.object(Reach, "_wait", autospec=True, side_effect=Reach._wait) as waited,
        nearest.connect(url.format(port), Schema({"dense": VectorSpec(4)})),
        Proxy(port) as proxy,
        nearest.connect(url.format(proxy.port)) as store,
    ):
        retry = faults._layer(store, Retry)
        pauses = Mock(side_effect=lambda _: time.sleep(0.15))
        retry._sleep = pauses
        proxy.refuse()
        for _ in range(2):  # the connection that breaks, and one that is refused
            with pytest.raises(ConnectionFailed):
                retry.inner.search(Query(Dense(np.ones(4))))
        proxy.lift()
        assert store.search(Query(Dense(np.ones(4)))) == []
        assert pauses.call_count <= 3
        assert waited.called
        proxy.refuse()  # and it may be closed while somebody waits
        with pytest.raises(ConnectionFailed):
            retry.inner.search(Query(Dense(np.ones(4))))
