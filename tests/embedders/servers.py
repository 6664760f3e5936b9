"""A local server that speaks the embedding APIs of OpenAI, Cohere and Gemini, and misbehaves to order.

Its vectors are those of `vector_for`, so that order and completeness can be checked. Faults are a queue: each
request takes the next one, and what it says is done instead of, or to, the answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from nearest.contract import Float32


def vector_for(text: str, dimension: int) -> Float32:
    """A unit vector from the text's hash."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    unit: Float32 = vector / np.linalg.norm(vector)
    return unit


@dataclass(slots=True)
class Fault:
    """status: answered with this and `body`. headers: of that answer. cut: the answer loses its last `cut` texts.
    garble: changes the answer's bytes. hang: no answer until the server is told to end. dimension: another."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    garble: Callable[[bytes], bytes] | None = None
    hang: bool = False
    dimension: int = 0


@dataclass(slots=True)
class Server:
    """What it was asked and what it answered. refuse: a text with any of these is refused (400), by its reason."""

    url: str = ""
    dimension: int = 8
    most: int = 2048
    faults: list[Fault] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    meet: threading.Barrier | None = None


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(_Handler):
        server_state = state

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


class _Handler(BaseHTTPRequestHandler):
    server_state: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        state = self.server_state
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with state.lock:
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
            state.requests.append({"path": self.path, **asked})
            state.keys |= {self.headers.get("Authorization", ""), self.headers.get("x-goog-api-key", "")} - {""}
            fault = state.faults.pop(0) if state.faults else Fault()
        try:
            if state.meet is not None:
                state.meet.wait(10)
            if fault.hang:
                state.ended.wait(30)
                self.close_connection = True
                return
            if fault.status != 200:
                self._send(
                    fault.status, json.dumps(fault.body if fault.body is not None else {}).encode(), fault.headers
                )
                return
            self._answer(asked, fault)
        finally:
            with state.lock:
                state.at_once -= 1

    def _answer(self, asked: dict[str, Any], fault: Fault) -> None:
        state = self.server_state
        openai, cohere = self.path.endswith("/embeddings"), self.path.endswith("/embed")
        if openai:
            texts, wanted = list(asked["input"]), asked.get("dimensions")
        elif cohere:
            texts, wanted = list(asked["texts"]), asked.get("output_dimension")
        else:
            texts = [r["content"]["parts"][0]["text"] for r in asked["requests"]]
            wanted = asked["requests"][0].get("outputDimensionality")
        reason = next((why for text in texts for mark, why in state.refuse.items() if mark in text), None)
        if len(texts) > state.most:
            reason = f"batch size {len(texts)} > maximum allowed batch size {state.most}"
        if reason is not None:
            refusal = (
                {"message": reason} if cohere else {"error": {"message": reason, "code": 400, "status": "INVALID"}}
            )
            self._send(400, json.dumps(refusal).encode(), {})
            return
        dimension = fault.dimension or wanted or state.dimension
        given = texts[: len(texts) - fault.cut]
        rows = [vector_for(text, dimension) for text in given]
        tokens = sum(len(text.split()) for text in given)
        body: dict[str, Any] = {}
        if openai:
            float_wanted = asked.get("encoding_format") == "float"
            items = [
                {"object": "embedding", "index": i,
                 "embedding": row.tolist() if float_wanted else base64.b64encode(row.tobytes()).decode()}
                for i, row in enumerate(rows)
            ]  # fmt: skip
            body = {
                "object": "list", "model": asked["model"], "data": items[::-1],  # by index, not by order
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }  # fmt: skip
        elif cohere:
            body = {
                "id": "1", "texts": given, "embeddings": {"float": [row.tolist() for row in rows]},
                "meta": {"billed_units": {"input_tokens": tokens}},
            }  # fmt: skip
        else:
            body = {"embeddings": [{"values": row.tolist()} for row in rows]}
        sent = json.dumps(body).encode()
        if fault.garble is not None:
            sent = fault.garble(sent)
        else:
            with state.lock:
                state.answered.update(given)
        self._send(200, sent, {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
