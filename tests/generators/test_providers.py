"""Each provider through its own client, against a server that speaks its API."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nearest import generators
from nearest.contract import Message, Spent
from nearest.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    MissingDependency,
    ModelError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.generators._prices import PRICES
from nearest.generators._remote import RemoteGenerator
from tests.generators.servers import INPUT, OUTPUT, Fault, Server, serving, text_of

PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google.genai",
    "cohere": "cohere",
    "ollama": "httpx",
}
ASKED = [Message("system", "Answer briefly."), Message("user", "How often?")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_KEY", "secret-of-this-test")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        yield running


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(PROVIDERS[name], reason=f"the client of {name} is not installed")
    return name


def make(provider: str, server: Server, **options: Any) -> RemoteGenerator:
    address = f"{server.url}/v1" if provider == "openai" else server.url
    made = generators.load(f"{provider}:model-1", base_url=address, api_key_env="TEST_KEY", **options)
    assert isinstance(made, RemoteGenerator)
    made.paused = []  # type: ignore[attr-defined]
    made.sleep = made.paused.append  # type: ignore[attr-defined]
    return made


def test_text_comes_in_pieces_and_tokens_last(provider: str, server: Server) -> None:
    prices = {} if provider == "ollama" else {"input_price": 1.0, "output_price": 10.0}
    *pieces, spent = make(provider, server, **prices).stream(ASKED, max_tokens=50)
    assert pieces == ["Keys are ", "rotated monthly. [1]"]
    assert isinstance(spent, Spent)
    assert (spent.requests, spent.input_tokens, spent.output_tokens) == (1, INPUT, OUTPUT)
    assert spent.dollars == (0.0 if provider == "ollama" else pytest.approx((INPUT + 10 * OUTPUT) / 1e6))


# Their words for an end at the limit, and for another one.
ENDS = {
    "openai": ("length", "content_filter"),
    "anthropic": ("max_tokens", "refusal"),
    "gemini": ("MAX_TOKENS", "SAFETY"),
    "cohere": ("MAX_TOKENS", "TIMEOUT"),
    "ollama": ("length", "unload"),
}


def test_the_provider_says_why_its_text_ended(provider: str, server: Server) -> None:
    # As many tokens as were allowed, and complete all the same.
    assert make(provider, server).complete(ASKED, max_tokens=OUTPUT)[1].stopped is None
    limit, other = ENDS[provider]
    server.why = limit
    assert make(provider, server).complete(ASKED, max_tokens=500)[1].stopped == "max_tokens"
    server.why = other
    assert make(provider, server).complete(ASKED, max_tokens=500)[1].stopped == other.lower()


def test_a_limit_that_thoughts_used_up(server: Server) -> None:
    pytest.importorskip("google.genai", reason="the client of gemini is not installed")
    server.pieces, server.why = [""], "MAX_TOKENS"
    text, spent = make("gemini", server).complete(ASKED, max_tokens=OUTPUT)
    assert (text, spent.stopped, spent.output_tokens) == ("", "max_tokens", OUTPUT)


def test_what_is_sent(provider: str, server: Server) -> None:
    generator = make(provider, server, temperature=0.2)
    again = [*ASKED, Message("assistant", "Monthly."), Message("user", "Why?")]
    text, _ = generator.complete(again, max_tokens=50)
    assert text == "Keys are rotated monthly. [1]"
    ((path, headers, body),) = server.requests
    system, turns = text_of(path, body)
    assert system == "Answer briefly."
    assert [text for _, text in turns] == ["How often?", "Monthly.", "Why?"]
    assert [role for role, _ in turns] == ["user", "model" if provider == "gemini" else "assistant", "user"]
    assert "tools" not in body
    assert "tool_choice" not in body
    assert "50" in str(body)
    assert "0.2" in str(body)
    assert "secret-of-this-test" in str(headers)


def test_no_key_goes_to_an_address_unless_it_is_named(provider: str, server: Server, monkeypatch: Any) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "CO_API_KEY"):
        monkeypatch.setenv(name, "secret-of-the-account")
    address = f"{server.url}/v1" if provider == "openai" else server.url
    generators.load(f"{provider}:model-1?base_url={address}").complete(ASKED, max_tokens=50)
    assert "secret-of-the-account" not in str(server.requests)


def test_a_key_that_is_missing_is_named(server: Server, monkeypatch: Any) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    pytest.importorskip("anthropic", reason="the client of anthropic is not installed")
    with pytest.raises(AccessDenied, match="ANTHROPIC_API_KEY"):
        generators.load("anthropic:claude-haiku-4-5").complete(ASKED, max_tokens=5)


def test_too_many_requests_wait_as_long_as_the_server_says(provider: str, server: Server) -> None:
    server.faults = [Fault(429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}), Fault(500, {})]
    generator = make(provider, server)
    text, spent = generator.complete(ASKED, max_tokens=50)
    assert (text, spent.requests) == ("Keys are rotated monthly. [1]", 3)
    first, second = generator.paused  # type: ignore[attr-defined]
    assert 7 <= first < 8
    assert 0 <= second <= 1


def test_a_date_in_retry_after(provider: str, server: Server) -> None:
    at = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.faults = [Fault(503, {}, {"Retry-After": at})]
    generator = make(provider, server)
    generator.complete(ASKED, max_tokens=50)
    assert 25 <= generator.paused[0] <= 31  # type: ignore[attr-defined]


def test_patience_ends(provider: str, server: Server) -> None:
    server.faults = [Fault(429, {}, {"Retry-After": "100"})]
    with pytest.raises(Throttled) as caught:
        make(provider, server, patience=50.0).complete(ASKED, max_tokens=50)
    assert caught.value.context["retry_after"] == 100
    assert caught.value.context["attempts"] == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(400, ModelError), (401, AccessDenied), (403, AccessDenied), (404, UnsupportedError)]
)
def test_what_is_refused_is_not_repeated(provider: str, server: Server, status: int, error: type[Exception]) -> None:
    server.faults = [Fault(status, {"error": {"message": "no: secret-of-this-test"}})]
    with pytest.raises(error) as caught:
        make(provider, server).complete(ASKED, max_tokens=50)
    assert len(server.requests) == 1
    assert "secret-of-this-test" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_silent_server_times_out(provider: str, server: Server) -> None:
    server.faults = [Fault(after=0, hang=True)]
    with pytest.raises(TimedOut, match=r"within 0\.2 s"):
        make(provider, server, timeout=0.2, patience=0.1).complete(ASKED, max_tokens=50)


def test_what_came_before_a_break_is_not_repeated(provider: str, server: Server) -> None:
    # Anthropic and Cohere open with two events that hold no text.
    server.faults = [Fault(after=3 if provider in ("anthropic", "cohere") else 1)]
    pieces: list[Any] = []
    with pytest.raises(ConnectionFailed):
        pieces.extend(make(provider, server).stream(ASKED, max_tokens=50))
    assert len(server.requests) == 1


def test_a_break_before_any_text_is_repeated(provider: str, server: Server) -> None:
    server.faults = [Fault(after=0)]
    assert make(provider, server).complete(ASKED, max_tokens=50)[0] == "Keys are rotated monthly. [1]"
    assert len(server.requests) == 2


def test_nobody_answers(provider: str, server: Server) -> None:
    with serving() as gone:
        pass
    with pytest.raises(ConnectionFailed) as caught:
        make(provider, gone).complete(ASKED, max_tokens=50)
    assert caught.value.context["attempts"] == 4


def test_an_error_among_the_events(server: Server) -> None:
    pytest.importorskip("anthropic", reason="the client of anthropic is not installed")
    said = 'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    server.faults = [Fault(after=0, body=said)]
    generator = make("anthropic", server)
    assert generator.complete(ASKED, max_tokens=50)[1].requests == 2


def test_ollama_refuses_what_it_would_cut(server: Server) -> None:
    pytest.importorskip("httpx", reason="the client of ollama is not installed")
    long = [Message("user", "word " * 5000)]
    with pytest.raises(ModelError, match="context=2048"):
        make("ollama", server, context=1024).complete(long, max_tokens=50)
    assert server.requests == []
    make("ollama", server, context=16384).complete(long, max_tokens=50)
    assert server.requests[0][2]["options"] == {"num_ctx": 16384, "num_predict": 50}


def test_money_is_counted_where_prices_are_given() -> None:
    pytest.importorskip("openai", reason="the client of openai is not installed")
    assert generators.load("openai:a-model-of-tomorrow").price is None
    assert generators.load("openai:gpt-4.1-mini").price == PRICES["openai:gpt-4.1-mini"][:2]
    assert generators.load("openai:gpt-4.1-mini?input_price=2&output_price=4.5").price == (2.0, 4.5)
    assert generators.load("openai:gpt-4.1-mini?base_url=http://localhost:8000/v1").price is None
    assert generators.load("openai:x?input_price=2&output_price=4.5").price == (2.0, 4.5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt-4.1", "provider:model, such as"),
        ("nobody:model", "no generator named 'nobody'"),
        ("openai:m?timeout=0", "timeout must be above 0"),
        ("openai:m?patience=long", "must be a number"),
        ("openai:m?input_price=2", "together"),
        ("openai:m?input_price=2&output_price=-1", "from 0"),
        ("openai:m?base_url=ftp://x", "address of a server"),
        ("openai:m?base_url=http://me:secret@x/v1", "api_key_env"),
        ("openai:m?tools=all", "tools"),
        ("ollama:m?context=1", "at least 512"),
        ("gemini:m?thinking=-1", "thinking must be"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    pytest.importorskip(PROVIDERS.get(spec.partition(":")[0], "json"), reason="its client is not installed")
    with pytest.raises(InvalidInput, match=message):
        generators.load(spec)


def test_a_missing_client_is_told_with_the_command(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, PROVIDERS[provider], None)
    with pytest.raises(MissingDependency, match=rf"pip install 'nearest\[{provider}\]'"):
        generators.load(f"{provider}:model-1")
