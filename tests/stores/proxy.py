"""A TCP proxy with faults to order, in front of any server: what a bad network does, when the test says so.

    with Proxy(server_port) as proxy:
        fault = proxy.arm(Fault("reset", "down", after=100))   # the next connection that answers takes it, once
        ...                                                    # fault.fired: an Event
        proxy.refuse()                                         # until lift()
        proxy.answer(429, retry_after=1)                       # in place of the server, in its protocol

Directions are seen from the client: "up" is what it sends, "down" what it gets. To answer, the proxy is told what is
spoken: "http" (HTTP/1.1 without pipelining; a status), "grpc" (the name of a StatusCode), or "postgresql" (an SQLSTATE,
after which the session ends). Anything else is bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Direction = Literal["connect", "up", "down"]
Server = int | str
"""A port of 127.0.0.1, or the path of a Unix socket."""
Speaks = Literal["bytes", "http", "grpc", "postgresql"]


@dataclass(eq=False)
class Fault:
    """reset: RST to both sides. cut: orderly closed, in the middle. stall: nothing goes on in that direction, until
    `lift` resets the connection. delay: goes on after `seconds`. after: bytes that pass in that direction first.
    """

    kind: Literal["reset", "cut", "stall", "delay"]
    direction: Direction = "up"
    after: int = 0
    seconds: float = 0.0
    fired: threading.Event = field(default_factory=threading.Event)


@dataclass
class Answer:
    status: int | str
    retry_after: int | None
    chosen: Callable[[str, str], bool]

    def as_http(self) -> bytes:
        reason = {429: "Too Many Requests", 503: "Service Unavailable"}.get(int(self.status), "Proxied")
        retry = "" if self.retry_after is None else f"Retry-After: {self.retry_after}\r\n"
        head = f"HTTP/1.1 {self.status} {reason}\r\n{retry}Content-Type: application/json\r\nContent-Length: 2\r\n"
        return f"{head}\r\n{{}}".encode()

    def as_postgresql(self) -> bytes:
        """An ErrorResponse, in the server's own words: of a connection that fails libpq tells nothing else."""
        said = {
            "53300": "sorry, too many clients already",
            "57P01": "terminating connection due to administrator command",
            "57P03": "the database system is starting up",
        }
        fields = {"S": "FATAL", "V": "FATAL", "C": str(self.status), "M": said[str(self.status)]}
        body = b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0"
        return b"E" + (len(body) + 4).to_bytes(4) + body


class Proxy:
    """Listens on `port` of 127.0.0.1 from `__enter__` to `__exit__`; all methods are for the test's thread."""

    def __init__(self, server: Server, speaks: Speaks = "bytes") -> None:
        self._behind = server
        self.speaks = speaks
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._bound: socket.socket | None = None  # holds the port while nobody listens
        self._server: asyncio.Server | None = None
        self._grpc = contextlib.ExitStack()
        self._connections: set[_Connection] = set()
        self._armed: list[Fault] = []
        self._answers: list[Answer] = []
        self.port = 0
        self.accepted = 0
        self.answered = 0

    def __enter__(self) -> Self:
        self._thread.start()
        if self.speaks == "grpc":
            from tests.stores.grpc_proxy import forwarding

            self._behind = self._grpc.enter_context(forwarding(self._behind, self.take_answer_from))
        self._do(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._refuse)
        self._do(self._end)
        self._grpc.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._bound is not None:
            self._bound.close()

    def arm(self, fault: Fault) -> Fault:
        """The first connection that goes in its direction from now on takes the fault."""
        self._do(self._arm, fault)
        return fault

    def answer(
        self,
        status: int | str,
        *,
        retry_after: int | None = None,
        times: int = 1,
        chosen: Callable[[str, str], bool] = lambda method, path: True,
    ) -> None:
        """The next requests that are chosen, by method and path, are answered here and do not reach the server.

        Of gRPC the method is always POST; of PostgreSQL it is "startup" or "statement", and there is no path.
        """
        assert self.speaks != "bytes", "answers need to know what is spoken"
        self._do(self._add_answers, [Answer(status, retry_after, chosen)] * times)

    def refuse(self) -> None:
        """Reset all connections and refuse new ones, until `lift`."""
        self._do(self._refuse)

    def lift(self) -> None:
        """Back to an honest proxy: what is armed is forgotten, stalled connections are reset."""
        self._do(self._lift)

    # --- in the loop's thread ---

    def _do(self, work: Callable[..., Any], *args: Any) -> Any:
        async def run() -> Any:
            result = work(*args)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    def _arm(self, fault: Fault) -> None:
        self._armed.append(fault)

    def _add_answers(self, answers: list[Answer]) -> None:
        self._answers += answers

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        return bound

    async def _listen(self) -> None:
        if self._server is None:
            bound, self._bound = self._bound or self._bind(), None
            self._server = await asyncio.start_server(self._accept, sock=bound, limit=2**20)

    def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._bound = self._bind()
        for connection in list(self._connections):
            connection.reset()

    async def _lift(self) -> None:
        self._armed.clear()
        self._answers.clear()
        for connection in list(self._connections):
            connection.taken.clear()
            if connection.stalled:
                connection.reset()
        await self._listen()

    async def _end(self) -> None:
        tasks = [connection.task for connection in self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def take(self, direction: Direction) -> Fault | None:
        for fault in self._armed:
            if fault.direction == direction:
                self._armed.remove(fault)
                return fault
        return None

    def take_answer(self, method: str, path: str) -> Answer | None:
        for answer in self._answers:
            if answer.chosen(method, path):
                self._answers.remove(answer)
                self.answered += 1
                return answer
        return None

    def take_answer_from(self, path: str) -> Answer | None:
        """By another thread than the loop's."""
        answer: Answer | None = self._do(self.take_answer, "POST", path)
        return answer

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        connection.task = asyncio.ensure_future(connection.run(self._behind))
        connection.task.add_done_callback(lambda task: self._ended(connection, task))

    def _ended(self, connection: _Connection, task: asyncio.Future[None]) -> None:
        self._connections.discard(connection)
        if task.cancelled() or isinstance(task.exception(), OSError):
            connection.reset()


class _Cut(Exception):
    """Close both sides in order."""


class _Connection:
    task: asyncio.Future[None]

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.client = writer
        self.server: asyncio.StreamWriter | None = None
        self.taken: dict[Direction, Fault] = {}
        self.stalled = False
        self.told = b""  # the last bytes that the client got

    async def run(self, server: Server) -> None:
        both: list[asyncio.Future[None]] = []
        try:
            if (fault := self.proxy.take("connect")) is not None:
                await self._fire(fault)
            if isinstance(server, str):
                answers, self.server = await asyncio.open_unix_connection(server)
            else:
                answers, self.server = await asyncio.open_connection("127.0.0.1", server)
            up = {"http": self._requests, "postgresql": self._session}.get(self.proxy.speaks, self._up)(self.server)
            both = [asyncio.ensure_future(up), asyncio.ensure_future(self._pump(answers, self.client, "down"))]
            await asyncio.gather(*both)
        finally:
            for each in both:
                each.cancel()
            for writer in (self.client, self.server):
                if writer is not None:
                    writer.close()

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                # Closing with a linger of no time is what sends RST.
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                writer.transport.abort()
        self.task.cancel()

    async def _up(self, server: asyncio.StreamWriter) -> None:
        await self._pump(self.reader, server, "up")

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        while data := await reader.read(2**16):
            await self._pass(data, writer, direction)
            if direction == "down":
                self.told = (self.told + data)[-6:]
        writer.write_eof()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, direction: Direction) -> None:
        fault = self.taken.get(direction) or self.proxy.take(direction)
        if fault is not None:
            if len(data) < fault.after:
                fault.after -= len(data)
                self.taken[direction] = fault
            else:
                self.taken.pop(direction, None)
                writer.write(data[: fault.after])
                await writer.drain()
                data = data[fault.after :]
                await self._fire(fault)
        writer.write(data)
        await writer.drain()

    async def _fire(self, fault: Fault) -> None:
        """Returns if the connection is to go on; resetting cancels this task."""
        if fault.kind == "delay":
            fault.fired.set()
            await asyncio.sleep(fault.seconds)
            return
        if fault.kind == "stall":
            self.stalled = True
            fault.fired.set()
            await asyncio.get_running_loop().create_future()
        if fault.kind == "reset":
            self.reset()
        fault.fired.set()
        raise _Cut  # after a reset nothing is left to close

    # --- HTTP ---

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            answer = self.proxy.take_answer(method, path)
            if answer is None:
                await self._pass(head, server, "up")
            async for piece in self._body(head):
                if answer is None:
                    await self._pass(piece, server, "up")
            if answer is not None:
                # Nothing else is on its way down: the client waits for this.
                self.client.write(answer.as_http())
                await self.client.drain()
        server.write_eof()

    async def _body(self, head: bytes) -> AsyncIterator[bytes]:
        """Of a request, as it is on the wire."""
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            size = -1
            while size != 0:
                line = await self.reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                yield line + await self.reader.readexactly(size + 2)
            return
        left = int(headers.get(b"content-length", b"0"))
        while left:
            piece = await self.reader.read(min(left, 2**16))
            if not piece:
                raise ConnectionResetError("the client left in the middle of a request")
            left -= len(piece)
            yield piece

    # --- PostgreSQL ---

    async def _session(self, server: asyncio.StreamWriter) -> None:
        """Message by message; what is answered here ends the session, as a server does that says FATAL."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            version = 0
            while version != 3:  # before it says who it is, a client may ask for encryption
                size = await self.reader.readexactly(4)
                startup = size + await self.reader.readexactly(int.from_bytes(size) - 4)
                version = int.from_bytes(startup[4:6])
                if version == 3:
                    await self._last(self.proxy.take_answer("startup", ""))
                await self._pass(startup, server, "up")
            while True:
                head = await self.reader.readexactly(5)
                # Where the server waits too (ReadyForQuery came last), and not of a session that the client ends.
                if self.told[:5] == b"Z\0\0\0\5" and head[:1] != b"X":
                    await self._last(self.proxy.take_answer("statement", ""))
                await self._pass(head + await self.reader.readexactly(int.from_bytes(head[1:]) - 4), server, "up")
        server.write_eof()

    async def _last(self, answer: Answer | None) -> None:
        if answer is not None:
            self.client.write(answer.as_postgresql())
            await self.client.drain()
            raise _Cut
