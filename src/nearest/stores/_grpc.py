"""What stores over gRPC share: a server that was away is found again as soon as it is back.

gRPC lets two things stand in the way. Between two attempts to reach the server it refuses all calls, and it makes few:
after 1 s, and up to every 2 min. And it works on them only while somebody waits for the channel, which a call that is
refused at once does not, or else every 5 s.
"""

from __future__ import annotations

import threading
from typing import Any

RECONNECT = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 2_000}
"""Options of a channel."""


class Reach:
    """Waits for a channel to be ready, in a thread of gRPC's that ends then, or when the channel is closed."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._mutex = threading.Lock()
        self._ready: Any = None

    def after(self, call: Any) -> None:
        """What a call ended with, if that is that the server is away, begins it. call: has a `code()`."""
        import grpc  # type: ignore[import-untyped]

        if call.code() is grpc.StatusCode.UNAVAILABLE:
            with self._mutex:
                if self._ready is None or self._ready.done():
                    self._ready = grpc.channel_ready_future(self._channel)


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
