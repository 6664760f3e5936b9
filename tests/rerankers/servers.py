"""A local server with the `/rerank` forms of Cohere and text-embeddings-inference, and chat completions.

The score of a text is the number that it ends with, divided by 100. It answers in falling order of score, as the
real ones do, and misbehaves to order: each request takes the next of `faults`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Fault:
    """status and headers: of the answer, whose body is then `body`. change: what is done to a good answer.
    hang: no answer until the server ends."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None
    hang: bool = False


@dataclass(slots=True)
class Server:
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)


def score(text: str) -> float:
    return int(text.split()[-1]) / 100


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append((self.path, asked))
                state.keys.append(self.headers.get("Authorization"))
                fault = state.faults.pop(0) if state.faults else Fault()
            if fault.hang:
                state.ended.wait(30)
                self.close_connection = True
                return
            if fault.status != 200:
                self._send(fault.status, fault.body, fault.headers)
                return
            answer = _answer(self.path, asked)
            self._send(200, fault.change(answer) if fault.change else answer, {})

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield state
    finally:
        state.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _answer(path: str, asked: dict[str, Any]) -> Any:
    if path.endswith("/chat/completions"):
        grades = [round(100 * score(text)) for text in passages(asked)]
        message = {"role": "assistant", "content": f"<think>[1, 2]</think>\n{json.dumps(grades)}"}
        return {
            "id": "1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
    tei = "texts" in asked
    texts = asked["texts"] if tei else asked["documents"]
    name = "score" if tei else "relevance_score"
    rows = sorted(({"index": i, name: score(t)} for i, t in enumerate(texts)), key=lambda row: -row[name])
    return rows if tei else {"id": "1", "results": rows, "meta": {"api_version": {"version": "2"}}}


def passages(asked: dict[str, Any]) -> list[str]:
    """What stands between the tags of a prompt, as a reader that trusts nothing but the tags would find it."""
    said = asked["messages"][-1]["content"]
    head, _, rest = said.partition("\n")
    tag = re.escape(json.loads(head)["tag"])
    found = re.findall(rf"^<{tag} (\d+)>\n(.*?)\n</{tag} \1>$", rest, re.DOTALL | re.MULTILINE)
    return [text for _, text in found]
