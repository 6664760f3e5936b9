"""The fault proxy does what it is told: or tests through it would prove nothing."""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
import psycopg
import pytest

from tests.stores.postgres import Postgres, postgres  # noqa: F401 -- a fixture
from tests.stores.proxy import Fault, Proxy


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(2**16):
                self.server.seen += data  # type: ignore[attr-defined]
                self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    seen = b""


@pytest.fixture
def echo() -> Iterator[_EchoServer]:
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: _EchoServer) -> Iterator[Proxy]:
    with Proxy(echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


def dial(proxy: Proxy, sockets: list[socket.socket]) -> socket.socket:
    sockets.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=10))
    return sockets[-1]


def read(client: socket.socket, count: int) -> bytes:
    """Up to the end, or to so many bytes."""
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def test_an_honest_proxy(proxy: Proxy, sockets: list[socket.socket]) -> None:
    one, other = dial(proxy, sockets), dial(proxy, sockets)
    big = bytes(range(256)) * 4096
    writer = threading.Thread(target=one.sendall, args=(big,))
    writer.start()
    assert read(one, len(big)) == big
    writer.join()
    other.sendall(b"hello")
    other.shutdown(socket.SHUT_WR)
    assert read(other, 100) == b"hello"
    assert proxy.accepted == 2


def test_reset_after_bytes_up(proxy: Proxy, echo: _EchoServer, sockets: list[socket.socket]) -> None:
    fault = proxy.arm(Fault("reset", "up", after=7))
    client = dial(proxy, sockets)
    client.sendall(b"abc")
    assert read(client, 3) == b"abc"
    assert not fault.fired.is_set()
    client.sendall(b"defghij")
    assert fault.fired.wait(10)
    with pytest.raises(ConnectionResetError):
        read(client, 100)
    assert b"abcdefghij".startswith(echo.seen)
    assert len(echo.seen) <= 7
    again = dial(proxy, sockets)
    again.sendall(b"x")
    assert read(again, 1) == b"x"


def test_reset_after_bytes_down(proxy: Proxy, echo: _EchoServer, sockets: list[socket.socket]) -> None:
    """The server has seen it all; the answer is lost."""
    client = dial(proxy, sockets)
    client.sendall(b"warm")
    assert read(client, 4) == b"warm"
    proxy.arm(Fault("reset", "down", after=0))
    client.sendall(b"asked")
    with pytest.raises(ConnectionResetError):
        read(client, 100)
    assert echo.seen == b"warmasked"


def test_cut_ends_in_order(proxy: Proxy, sockets: list[socket.socket]) -> None:
    proxy.arm(Fault("cut", "down", after=2))
    client = dial(proxy, sockets)
    client.sendall(b"hello")
    assert read(client, 100) == b"he"


def test_reset_at_connect(proxy: Proxy, sockets: list[socket.socket]) -> None:
    fault = proxy.arm(Fault("reset", "connect"))
    with pytest.raises(ConnectionError):
        read(dial(proxy, sockets), 1)
    assert fault.fired.is_set()


def test_refuse_and_lift(proxy: Proxy, sockets: list[socket.socket]) -> None:
    client = dial(proxy, sockets)
    client.sendall(b"a")
    assert read(client, 1) == b"a"
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        read(client, 1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            dial(proxy, sockets)
        proxy.refuse()
    proxy.lift()
    assert proxy.port == port
    again = dial(proxy, sockets)
    again.sendall(b"b")
    assert read(again, 1) == b"b"


def test_stall_until_lifted(proxy: Proxy, echo: _EchoServer, sockets: list[socket.socket]) -> None:
    fault = proxy.arm(Fault("stall", "up", after=1))
    client, other = dial(proxy, sockets), dial(proxy, sockets)
    client.sendall(b"abc")
    assert fault.fired.wait(10)
    assert read(client, 1) == b"a"
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    other.sendall(b"x")
    assert read(other, 1) == b"x"
    proxy.lift()
    client.settimeout(10)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    other.sendall(b"y")
    assert read(other, 1) == b"y"
    assert sorted(echo.seen) == sorted(b"axy")


def test_delay(proxy: Proxy, sockets: list[socket.socket]) -> None:
    fault = proxy.arm(Fault("delay", "down", seconds=0.3))
    client = dial(proxy, sockets)
    client.sendall(b"abc")
    assert fault.fired.wait(10)
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    assert read(client, 3) == b"abc"


def test_lifting_disarms(proxy: Proxy, sockets: list[socket.socket]) -> None:
    faults = [proxy.arm(Fault("reset", "up")), proxy.arm(Fault("reset", "connect"))]
    proxy.lift()
    client = dial(proxy, sockets)
    client.sendall(b"abc")
    assert read(client, 3) == b"abc"
    assert not any(fault.fired.is_set() for fault in faults)


# --- HTTP ---


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, len(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, int]] = []


def _ask(client: http.client.HTTPConnection, path: str, body: bytes) -> None:
    client.request("POST", path, body)
    client.getresponse()


@pytest.fixture
def web() -> Iterator[_HTTPServer]:
    with _HTTPServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_answers_in_place_of_the_server(web: _HTTPServer) -> None:
    with Proxy(web.server_address[1], "http") as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        proxy.answer(429, retry_after=3, chosen=lambda method, path: method == "POST" and path == "/b")
        proxy.answer(503, times=2, chosen=lambda method, path: path == "/c")
        big = b"x" * 300_000
        asked: list[tuple[str, str, Any]] = [
            ("POST", "/a", big), ("GET", "/b", None), ("POST", "/b", big), ("POST", "/b", big), ("GET", "/c", None),
            *[("POST", "/c", iter([b"ab", b"c" * 70_000])) for _ in range(2)],
        ]  # fmt: skip
        told = []
        for method, path, body in asked:
            client.request(method, path, body)
            response = client.getresponse()
            told.append((response.status, response.getheader("Retry-After"), len(response.read())))
        # One connection all along: what was answered here left nothing of its body behind.
        assert told == [
            (200, None, 300_000), (200, None, 0), (429, "3", 2), (200, None, 300_000), (503, None, 2), (503, None, 2),
            (200, None, 70_002),
        ]  # fmt: skip
        assert (proxy.accepted, proxy.answered) == (1, 3)
        assert web.seen == [("/a", 300_000), ("/b", 0), ("/b", 300_000), ("/c", 70_002)]
        # The other faults count the bytes of requests too.
        fault = proxy.arm(Fault("reset", "up", after=1000))
        with pytest.raises(ConnectionError):  # while it is sent, or when the answer is read
            _ask(client, "/d", big)
        assert fault.fired.is_set()
        client.close()
    assert len(web.seen) == 4


# --- gRPC ---


def test_statuses_in_place_of_a_grpc_server() -> None:
    seen: list[tuple[bytes, str]] = []

    def serve(request: bytes, context: Any) -> bytes:
        seen.append((request, dict(context.invocation_metadata())["who"]))
        if request == b"bad":
            context.set_trailing_metadata((("why", "it is bad"),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        return request * 2

    methods = dict.fromkeys(["A", "B"], grpc.unary_unary_rpc_method_handler(serve))
    handlers = (grpc.method_handlers_generic_handler("test", methods),)
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def ask(method: str, request: bytes) -> Any:
        try:
            return channel.unary_unary(f"/test/{method}")(request, timeout=10, metadata=[("who", "me")])
        except grpc.RpcError as error:
            return error.code().name, error.details(), dict(error.trailing_metadata())

    any_size = [("grpc.max_receive_message_length", -1)]
    with Proxy(port, "grpc") as proxy, grpc.insecure_channel(f"127.0.0.1:{proxy.port}", any_size) as channel:
        big = b"x" * 3_000_000  # of which the answer is over gRPC's usual limit
        assert ask("A", big) == big * 2
        assert ask("A", b"bad") == ("INVALID_ARGUMENT", "no", {"why": "it is bad"})
        seen.clear()
        proxy.answer("RESOURCE_EXHAUSTED", chosen=lambda method, path: path == "/test/B")
        proxy.answer("UNAVAILABLE")
        assert ask("B", b"1")[0] == "RESOURCE_EXHAUSTED"
        assert ask("B", b"2")[0] == "UNAVAILABLE"
        assert (ask("B", b"3"), proxy.answered, seen) == (b"33", 2, [(b"3", "me")])
        proxy.answer("UNAVAILABLE")
        proxy.lift()
        assert ask("A", b"4") == b"44"
        fault = proxy.arm(Fault("reset", "down"))
        assert ask("A", b"5")[0] == "UNAVAILABLE"
        assert fault.fired.is_set()
    server.stop(None).wait()


# --- PostgreSQL ---


def test_a_postgresql_server_that_restarts(postgres: Postgres) -> None:  # noqa: F811
    with Proxy(f"{postgres.socket}/.s.PGSQL.5432", "postgresql") as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?sslmode=prefer&connect_timeout=10"
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("CREATE TEMP TABLE seen (n int)")
            big = "x" * 300_000
            assert session.execute("SELECT length(%s)", [big]).fetchone() == (300_000,)
            session.execute("BEGIN")
            proxy.answer("57P01", chosen=lambda method, _: method == "statement")
            with pytest.raises(psycopg.errors.AdminShutdown, match="administrator command"):
                session.execute("COMMIT")
            assert session.broken
        for state, said in (("57P03", "starting up"), ("53300", "too many clients")):
            # A client that may encrypt asks once more, without that.
            proxy.answer(state, chosen=lambda method, _: method == "startup", times=2)
            with pytest.raises(psycopg.OperationalError, match=said):
                psycopg.connect(url)
            proxy.lift()
        with psycopg.connect(url) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
