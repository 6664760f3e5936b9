"""A local server that speaks the streamed chat APIs of OpenAI, Anthropic, Gemini, Cohere and Ollama.

It misbehaves to order: faults are a queue, of which each request takes the next one. Requests are kept, so that
what was sent can be checked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT, OUTPUT = 120, 30


@dataclass(slots=True)
class Fault:
    """status: answered with this and `body`. after: pieces sent before the connection is cut, or before `hang`."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    hang: bool = False


@dataclass(slots=True)
class Server:
    """pieces: what it answers. why: the answer ended, in the API's own word; None if it is complete. requests: path,
    headers and body of each. ended: let hanging requests go."""

    url: str = ""
    pieces: list[str] = field(default_factory=lambda: ["Keys are ", "rotated monthly. [1]"])
    why: str | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": server}))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()


def text_of(path: str, body: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """The instructions of a request, and its turns, whichever API it is of."""
    if ":streamGenerateContent" in path:
        system = "".join(part["text"] for part in body["systemInstruction"]["parts"])
        return system, [(turn["role"], "".join(p["text"] for p in turn["parts"])) for turn in body["contents"]]
    turns = [(turn["role"], turn["content"]) for turn in body["messages"]]
    if "system" in body:
        return body["system"], turns
    return "\n".join(text for role, text in turns if role == "system"), [t for t in turns if t[0] != "system"]


class _Handler(BaseHTTPRequestHandler):
    told: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.partition("?")[0]
        self.told.requests.append((path, dict(self.headers), body))
        fault = self.told.faults.pop(0) if self.told.faults else Fault()
        if fault.status != 200:
            content = json.dumps(fault.body).encode()
            self.send_response(fault.status)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_response(200)
        kind = "application/x-ndjson" if path == "/api/chat" else "text/event-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(_events(path, self.told.pieces, body, self.told.why)):
            if fault.after is not None and number >= fault.after:
                if fault.hang:
                    self.told.ended.wait()
                if fault.body is not None:
                    self._chunk(fault.body)
                self.close_connection = True
                return  # without the last chunk: cut off
            self._chunk(event)
        self._chunk("")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _events(path: str, pieces: list[str], body: dict[str, Any], why: str | None) -> Iterator[str]:
    if path.endswith("/chat/completions"):
        base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for piece in pieces:
            yield _sse({**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]})
        yield _sse({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": why or "stop"}]})
        usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
        yield _sse({**base, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"
    elif path.endswith("/messages"):
        message = {
            "id": "1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": INPUT, "output_tokens": 1},
        }  # fmt: skip
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message},
            block,
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in pieces),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": why or "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": OUTPUT},
            },
            {"type": "message_stop"},
        ]
        for event in events:
            yield f"event: {event['type']}\n{_sse(event)}"
    elif path.endswith(":streamGenerateContent"):
        for number, piece in enumerate(pieces, 1):
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": piece}]}, "index": 0}
            if number == len(pieces):
                candidate["finishReason"] = why or "STOP"
            usage = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT - 10, "thoughtsTokenCount": 10}
            yield _sse({"candidates": [candidate], "usageMetadata": usage})
    elif path.endswith("/v2/chat"):
        yield _sse({"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}})
        start = {"message": {"content": {"type": "text", "text": ""}}}
        yield _sse({"type": "content-start", "index": 0, "delta": start})
        for piece in pieces:
            yield _sse({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": piece}}}})
        yield _sse({"type": "content-end", "index": 0})
        units = {"billed_units": {"input_tokens": INPUT, "output_tokens": OUTPUT}}
        yield _sse({"type": "message-end", "delta": {"finish_reason": why or "COMPLETE", "usage": units}})
    elif path == "/api/chat":
        for piece in pieces:
            yield json.dumps({"message": {"role": "assistant", "content": piece}, "done": False}) + "\n"
        last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": why or "stop"}
        yield json.dumps({**last, "prompt_eval_count": INPUT, "eval_count": OUTPUT}) + "\n"
    else:
        raise AssertionError(path)


def _sse(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"
