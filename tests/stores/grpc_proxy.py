"""Any gRPC server's calls, forwarded as bytes, or answered with a status in its place: the part of `Proxy` for gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]

from tests.stores.proxy import Answer, Server

_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
_OF_THE_TRANSPORT = ("user-agent", "grpc-")  # each connection has its own


@contextmanager
def forwarding(server: Server, answer: Callable[[str], Answer | None]) -> Iterator[int]:
    """A port of 127.0.0.1. answer: what to say to a call of a method, by its path, or None to forward it."""
    target = f"unix:{server}" if isinstance(server, str) else f"127.0.0.1:{server}"
    with grpc.insecure_channel(target, _ANY_SIZE) as channel:
        # One thread: calls reach the server in the order in which they came, those of broken connections too.
        front = grpc.server(ThreadPoolExecutor(1), handlers=(_Forward(channel, answer),), options=_ANY_SIZE)
        port = front.add_insecure_port("127.0.0.1:0")
        front.start()
        try:
            yield port
        finally:
            front.stop(None).wait()


class _Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Calls of one request and one answer, which are all that the databases' clients make."""

    def __init__(self, channel: Any, answer: Callable[[str], Answer | None]) -> None:
        self._channel = channel
        self._answer = answer

    def service(self, details: Any) -> Any:
        call = self._channel.unary_unary(details.method)

        def handle(request: bytes, context: Any) -> bytes:
            if (told := self._answer(details.method)) is not None:
                context.abort(grpc.StatusCode[told.status], "the proxy says so")
            metadata = [(k, v) for k, v in context.invocation_metadata() if not k.startswith(_OF_THE_TRANSPORT)]
            try:
                found: bytes = call(request, timeout=context.time_remaining(), metadata=metadata)
                return found
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata() or ())
                context.abort(error.code(), error.details())
                raise AssertionError("abort raises") from error

        return grpc.unary_unary_rpc_method_handler(handle)
