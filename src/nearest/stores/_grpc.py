"""What stores over gRPC share: a server that was away is found again as soon as it is back.

gRPC lets two things stand in the way. Between two attempts to reach the server it refuses all calls, and it makes few:
after 1 s, and up to every 2 min. And it works on them only while somebody waits for the channel, which a call that is
refused at once does not, or else every 5 s.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

RECONNECT = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 2_000}
"""Options of a channel."""
_PATIENCE = 60.0  # seconds


class Reach:
    """Has a channel look for its server: by a call that waits for it, which ends then, or when the channel is closed.

    The call is of gRPC's health check; that few servers have it does not matter.
    """

    def __init__(self, channel: Any) -> None:
        self._ask = channel.unary_unary("/grpc.health.v1.Health/Check")
        self._mutex = threading.Lock()
        self._waiting: threading.Thread | None = None

    def after(self, call: Any) -> None:
        """What a call ended with, if that is that the server is away, begins it. call: has a `code()`."""
        import grpc  # type: ignore[import-untyped]

        if call.code() is grpc.StatusCode.UNAVAILABLE:
            with self._mutex:
                if self._waiting is None or not self._waiting.is_alive():
                    self._waiting = threading.Thread(target=self._wait, daemon=True)
                    self._waiting.start()

    def _wait(self) -> None:
        import grpc

        with contextlib.suppress(grpc.RpcError, ValueError):  # the latter of a channel that was closed
            self._ask(b"", timeout=_PATIENCE, wait_for_ready=True)


def reaching(channel: Any) -> Any:
    """A channel that does so for the calls of one message to one message."""
    import grpc

    reach = Reach(channel)

    class Reaching(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            call = continuation(details, request)
            call.add_done_callback(reach.after)
            return call

    return grpc.intercept_channel(channel, Reaching())
