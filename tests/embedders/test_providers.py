"""OpenAI, Cohere and Gemini through their official clients, against a local server that speaks each API.

Nothing is lost, nothing is embedded twice, order is kept; what fails is ours and tells no secret.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import app, embedders, remote
from nearest.contract import Embedder
from nearest.embedders import _batching, _cache
from nearest.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    ModelError,
    ModelMismatch,
    TextsFailed,
    TextTooLong,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from tests.embedders.servers import Fault, Server, serving, vector_for

KEY = "a-secret-key-1234"
PROVIDERS = {"openai": "/v1", "cohere": "", "gemini": ""}
FINGERPRINTS = {  # the ends of those of `make`: plain, and with dimensions=4
    "openai": ("8636d8a8", "2f212eca"),
    "cohere": ("d2b85c61", "60752264"),
    "gemini": ("1bdf79d2", "acb87b36"),
}
TEXTS = [f"text number {i}" for i in range(250)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not made."""
    pauses: list[float] = []
    plain = _batching.Sender.__init__

    def init(self: _batching.Sender, *args: Any, **kwargs: Any) -> None:
        kwargs["pace"] = kwargs.get("pace") or _batching.Pace(None, None, sleep=pauses.append)
        plain(self, *args, **{**kwargs, "sleep": pauses.append, "seed": 1})

    monkeypatch.setattr(_batching.Sender, "__init__", init)
    return pauses


def make(provider: str, server: Server, **options: Any) -> Embedder:
    return embedders.load(
        f"{provider}:some-model",
        base_url=server.url + PROVIDERS[provider],
        **{"cache": False, "api_key_env": "A_KEY", "timeout": 20.0, "max_tokens": 1000, **options},
    )


def expected(texts: list[str], dimension: int = 8) -> np.ndarray[Any, Any]:
    return np.stack([vector_for(text, dimension) for text in texts])


def test_vectors_come_in_the_order_of_the_texts(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    texts = [*TEXTS, TEXTS[3], TEXTS[3]]
    vectors = embedder.embed_documents(texts)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, expected(texts), atol=1e-6)
    assert all(server.answered[text] == 1 for text in TEXTS)  # equal texts once
    assert np.allclose(embedder.embed_query("what?"), vector_for("what?", 8), atol=1e-6)
    assert embedder.embed_documents([]).shape == (0, 8)
    assert embedder.usage.texts == len(texts) + 1
    assert server.keys in ({f"Bearer {KEY}"}, {KEY})


def test_kinds_are_told_to_the_provider(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    embedder.embed_documents(["a"])
    embedder.embed_query("a")
    said = [str(request) for request in server.requests[-2:]]
    marks = {"cohere": ("search_document", "search_query"), "gemini": ("RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY")}
    if provider in marks:
        assert marks[provider][0] in said[0]
        assert marks[provider][1] in said[1]
        alike = make(provider, server, task="clustering")
        alike.embed_query("a")
        assert "clustering" in str(server.requests[-1]).lower()
        assert alike.fingerprint != embedder.fingerprint
        with pytest.raises(InvalidInput, match="task must be one of"):
            make(provider, server, task="dancing")
    else:
        with_prefix = make(provider, server, query_prefix="query: ")
        with_prefix.embed_query("a")
        assert server.requests[-1]["input"] == ["query: a"]
        assert with_prefix.fingerprint != embedder.fingerprint


def test_several_requests_are_under_way_at_once(provider: str, server: Server) -> None:
    embedder = make(provider, server, parallel=2)
    assert embedder.dimension == 8
    server.meet = threading.Barrier(2)  # each request waits for another one
    embedder.embed_documents(TEXTS[: {"openai": 64, "cohere": 192, "gemini": 200}[provider]])
    assert server.most_at_once == 2


def test_what_is_asked_too_fast_is_asked_again_when_the_provider_said(
    provider: str, server: Server, fast: list[float]
) -> None:
    embedder = make(provider, server)
    assert embedder.dimension == 8
    server.faults = [Fault(429, {"message": "slow down"}, {"Retry-After": "7"}), Fault(503), Fault()]
    vectors = embedder.embed_documents(TEXTS[:20])
    assert np.allclose(vectors, expected(TEXTS[:20]), atol=1e-6)
    assert max(fast) >= 7
    assert all(server.answered[text] == 1 for text in TEXTS[:20])
    assert embedder.usage.requests == 4  # the probe, two faults and one that succeeded


def test_the_first_request_to_an_unknown_model_is_repeated_too(
    provider: str, server: Server, fast: list[float]
) -> None:
    server.faults = [Fault(429, {"message": "slow down"}, {"Retry-After": "7"}), Fault(503), Fault(cut=1)]
    embedder = make(provider, server)
    assert embedder.dimension == 8
    assert max(fast) >= 7
    assert embedder.usage.requests == 4
    server.faults = [Fault(429, {"message": "no"})] * 8
    with pytest.raises(Throttled) as caught:
        make(provider, Server(url=f"{server.url}/another")).embed_documents(["a"])
    assert caught.value.context["attempts"] == 8


def test_a_throttled_provider_is_given_up_in_the_end(provider: str, server: Server, fast: list[float]) -> None:
    embedder = make(provider, server)
    assert embedder.dimension == 8
    server.faults = [Fault(429, {"message": "no"})] * 50
    with pytest.raises(Throttled) as caught:
        embedder.embed_documents(["a"])
    assert caught.value.retryable
    assert caught.value.context["attempts"] == 8
    server.faults = [Fault(429, {"message": "no"}, {"Retry-After": "100000"})]
    with pytest.raises(Throttled) as caught:  # longer than it may take at all: not waited for
        embedder.embed_query("a")
    assert caught.value.context["retry_after"] == 100_000
    assert max(fast) < 100


def test_no_answer_in_time(provider: str, server: Server) -> None:
    embedder = make(provider, server, timeout=0.3)
    assert embedder.dimension == 8
    server.faults = [Fault(hang=True)]
    assert np.allclose(embedder.embed_documents(["a"]), expected(["a"]), atol=1e-6)
    server.faults = [Fault(504)] * 8
    with pytest.raises(TimedOut):
        embedder.embed_documents(["a"])


def test_nobody_listens(provider: str, server: Server) -> None:
    gone = Server(url="http://127.0.0.1:9")
    with pytest.raises(ConnectionFailed):
        make(provider, gone).embed_documents(["a"])


@pytest.mark.parametrize(
    "garble",
    [
        lambda body: b"<html>bad gateway</html>",
        lambda body: body[: len(body) // 2],
        lambda body: b"{}",
        lambda body: b"[]",
        lambda body: b"null",
        lambda body: re.sub(rb"-?\d\.\d+(e-\d+)?", b"NaN", body, count=1),
    ],
)
def test_malformed_answers_are_asked_for_again(provider: str, server: Server, garble: Any) -> None:
    embedder = make(provider, server)
    assert embedder.dimension == 8
    server.faults = [Fault(garble=garble), Fault(garble=garble)]
    vectors = embedder.embed_documents(TEXTS[:8])
    assert np.allclose(vectors, expected(TEXTS[:8]), atol=1e-6)
    assert all(server.answered[text] <= 1 for text in TEXTS[:8])


def test_partial_answers_are_completed(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    assert embedder.dimension == 8
    server.faults = [Fault(cut=3), Fault(cut=1)]
    vectors = embedder.embed_documents(TEXTS[:10])
    assert np.allclose(vectors, expected(TEXTS[:10]), atol=1e-6)
    if provider != "gemini":  # whose answers do not tell which texts they are about
        assert all(server.answered[text] == 1 for text in TEXTS[:10])


def test_one_refused_text_does_not_cost_the_others(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    server.refuse = {"number 17": "contains something forbidden", "number 33": "maximum context length is 8 tokens"}
    with pytest.raises(TextsFailed) as caught:
        embedder.embed_documents(TEXTS[:40])
    failed, vectors = caught.value.failed, caught.value.vectors
    assert set(failed) == {17, 33}
    assert "forbidden" in str(failed[17])
    assert isinstance(failed[33], TextTooLong)
    fine = [i for i in range(40) if i not in failed]
    assert np.allclose(vectors[fine], expected([TEXTS[i] for i in fine]), atol=1e-6)
    assert np.isnan(vectors[[17, 33]]).all()
    assert all(server.answered[TEXTS[i]] == 1 for i in fine)
    with pytest.raises(ModelError, match="forbidden"):
        embedder.embed_query(TEXTS[17])


def test_what_succeeded_before_a_fatal_error_is_kept(provider: str, server: Server) -> None:
    embedder = make(provider, server, parallel=1)
    server.faults = [Fault(), Fault(), Fault(401, {"message": f"bad key {KEY}"})]
    with pytest.raises(TextsFailed) as caught:
        embedder.embed_documents(TEXTS)
    failed = caught.value.failed
    assert all(isinstance(error, AccessDenied) for error in failed.values())
    fine = [i for i in range(len(TEXTS)) if i not in failed]
    assert fine
    assert np.allclose(caught.value.vectors[fine], expected([TEXTS[i] for i in fine]), atol=1e-6)
    assert len(server.requests) == 3  # and nothing more was begun


def test_a_model_that_takes_no_text_at_all_is_not_asked_for_each(provider: str, server: Server) -> None:
    assert make(provider, server, dimensions=8).dimension == 8
    server.requests.clear()
    server.refuse = {"": "this model does not support dimensions"}
    with pytest.raises(UnsupportedError, match="does not support dimensions"):
        make(provider, server, dimensions=8).embed_documents(TEXTS[:20])
    assert len(server.requests) == 2


def test_a_throttled_test_of_health_is_no_refusal(provider: str, server: Server) -> None:
    assert make(provider, server).dimension == 8  # remembered: the others' first request is about texts
    server.refuse = {"number 1": "contains something forbidden"}
    server.faults = [Fault(), Fault(429, {"message": "slow down"})]
    with pytest.raises(TextsFailed) as caught:
        make(provider, server).embed_documents(TEXTS[:2])
    assert set(caught.value.failed) == {1}
    assert np.allclose(caught.value.vectors[0], vector_for(TEXTS[0], 8), atol=1e-6)
    server.faults = [Fault(), *[Fault(503)] * 8]
    with pytest.raises(ConnectionFailed):
        make(provider, server).embed_documents(TEXTS[:2])
    server.faults = [Fault(), Fault(401, {"message": "no"})]
    with pytest.raises(AccessDenied):
        make(provider, server).embed_documents(TEXTS[:2])


def test_a_model_that_refuses_the_first_request(provider: str, server: Server) -> None:
    server.refuse = {"": "not today"}
    with pytest.raises(UnsupportedError, match=r"takes no text at all.*not today"):
        make(provider, server).embed_documents(TEXTS[:20])
    assert len(server.requests) == 1


def test_a_text_over_the_limit(provider: str, server: Server) -> None:
    embedder = make(provider, server, max_tokens=20)
    long = " ".join(f"word{i}" for i in range(100))
    cut = embedder.embed_documents([long], truncate=True)
    assert embedder.truncated == 1
    (sent,) = [text for text in server.answered if text != "dimension"]
    assert long.startswith(sent)
    assert np.allclose(cut[0], vector_for(sent, 8), atol=1e-6)
    if provider != "cohere":  # which refuses such a text itself
        with pytest.raises(TextTooLong, match="about"):
            embedder.embed_query(long)


def test_the_provider_counts_otherwise_than_the_estimate(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    text = "one two three four five six seven eight nine ten eleven twelve"
    server.refuse = {"twelve": "maximum context length exceeded", "eight": "maximum context length exceeded"}
    vectors = embedder.embed_documents([text, "short"], truncate=True)
    sent = max((t for t in server.answered if text.startswith(t)), key=len)
    assert "eight" not in sent
    assert np.allclose(vectors, expected([sent, "short"]), atol=1e-6)
    assert embedder.truncated == 1


def test_another_dimension_than_before_is_caught(provider: str, server: Server) -> None:
    embedder = make(provider, server)
    assert embedder.dimension == 8
    assert make(provider, server).dimension == 8
    assert len(server.requests) == 1  # probed once, and remembered
    server.dimension = 16
    with pytest.raises(ModelMismatch, match="8 dimensions were expected"):
        make(provider, server).embed_documents(TEXTS[:5])
    assert make(provider, server).dimension == 16  # what was remembered is forgotten


def test_a_wrong_key(provider: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults = [Fault(401, {"message": f"Incorrect API key provided: {KEY[:6]}***, {KEY}"})] * 3
    with pytest.raises(AccessDenied) as caught:
        make(provider, server).embed_documents(["a"])
    assert KEY[:6] not in str(caught.value)
    assert caught.value.__cause__ is None
    server.faults = [Fault(400, {"message": f"bad request with {KEY}"}), Fault(400, {"message": f"with {KEY}"})]
    embedder = make(provider, server, dimensions=8)
    with pytest.raises(UnsupportedError) as refused:
        embedder.embed_documents(["a"])
    assert KEY not in str(refused.value)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(AccessDenied, match="A_KEY"):
        make(provider, server).embed_documents(["a"])
    assert KEY not in make(provider, server).name


def test_no_such_model(provider: str, server: Server) -> None:
    server.faults = [Fault(404, {"error": {"message": "model not found", "code": 404}})]
    with pytest.raises(UnsupportedError, match="no such model"):
        make(provider, server).embed_documents(["a"])


def test_dimensions_are_asked_for(provider: str, server: Server) -> None:
    embedder = make(provider, server, dimensions=4)
    assert not server.requests
    assert embedder.dimension == 4
    assert make(provider, server, dimensions=4).dimension == 4
    assert len(server.requests) == 1  # asked whether it really does, once
    assert np.allclose(embedder.embed_documents(["a"]), expected(["a"], 4), atol=1e-6)


def test_dimensions_that_an_unknown_model_does_not_give_are_refused_before_the_first_write(
    provider: str, server: Server, tmp_path: Path
) -> None:
    server.faults = [Fault(dimension=6)] * 3
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="6 dimensions, not 4"):
            nearest.open(tmp_path / "kb", embedder=make(provider, server, dimensions=4))
    assert not (tmp_path / "kb").exists()
    with pytest.raises(UnsupportedError, match="6 dimensions, not 4"):
        make(provider, server, dimensions=4).embed_documents(TEXTS)
    assert len(server.requests) == 3  # and none of the texts was paid for


def test_fingerprints_stay_what_they_are(provider: str, server: Server) -> None:
    whole, four = (make(provider, Server(url="http://127.0.0.1:9"), dimensions=d).fingerprint for d in (None, 4))
    assert (whole[-8:], four[-8:]) == FINGERPRINTS[provider]


def test_names_lead_back_to_the_same_embedder(provider: str, server: Server) -> None:
    embedder = make(provider, server, dimensions=4, rpm=100, parallel=2)
    again = embedders.load(embedder.name, cache=False)
    assert again.name == embedder.name == embedders.canonical(f"{embedder.name}&rpm=100&parallel=2")
    assert again.fingerprint == embedder.fingerprint
    assert np.allclose(again.embed_query("a"), embedder.embed_query("a"))


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("cohere:embed-v3", "cohere:embed-multilingual-v3.0"),
        ("cohere:embed-v4?dimensions=0256&cache=off", "cohere:embed-v4.0?dimensions=256"),
        ("cohere:embed-v4.0?task=search", "cohere:embed-v4.0"),
        ("cohere:embed-v4.0?task=clustering&price=0.1", "cohere:embed-v4.0?task=clustering"),
        ("gemini:gemini-embedding-001?task=retrieval", "gemini:gemini-embedding-001"),
        ("openai:m?query_prefix=&document_prefix=a b:%20", "openai:m?document_prefix=a%20b:%20"),
        ("openai:m?dimensions=08&max_tokens=0512", "openai:m?dimensions=8&max_tokens=512"),
    ],
)
def test_however_it_is_written_a_spec_has_the_name_of_its_embedder(spec: str, name: str) -> None:
    assert embedders.canonical(spec) == embedders.load(spec).name == name
    assert embedders.canonical(name) == name
    assert embedders.canonical("not-installed:m?a=b%20c") == "not-installed:m?a=b%20c"


def test_a_collection_is_opened_with_the_short_name_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    for _ in range(2):  # made, and opened again
        with nearest.open(tmp_path / "kb", embedder="cohere:embed-v4") as collection:
            assert collection.embedder.name == "cohere:embed-v4.0"
    with pytest.raises(ModelMismatch, match=r"not cohere:embed-multilingual-v3\.0"):
        nearest.open(tmp_path / "kb", embedder="cohere:embed-v3")
    with pytest.raises(InvalidInput, match="colour"):
        nearest.open(tmp_path / "kb", embedder="cohere:embed-v4?colour=red")


def test_tokens_and_dollars_are_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    embedder = make("openai", server, price=2.0)
    expected_cost = embedder.estimate(["one two three", "one two three", "four"])
    assert (expected_cost.texts, expected_cost.tokens) == (3, 4)  # equal texts count once
    assert expected_cost.dollars == pytest.approx(4 * 2e-6)
    assert not server.requests
    embedder.embed_documents(["one two three", "one two three", "four"])
    assert embedder.usage.tokens == 1 + 4  # the probe, and what the server said
    assert embedder.usage.dollars == pytest.approx(5 * 2e-6)
    assert embedder.price == 2.0


def test_a_server_gets_no_key_unless_one_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    embedder = make("openai", server, api_key_env=None)
    embedder.embed_query("a")
    assert all(KEY not in key for key in server.keys)


def test_openais_own_address_may_be_set_by_its_own_variable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    embedder = embedders.load("openai:text-embedding-3-small?dimensions=16", cache=False)
    assert np.allclose(embedder.embed_documents(TEXTS[:9]), expected(TEXTS[:9], 16), atol=1e-6)
    assert server.keys == {f"Bearer {KEY}"}
    assert "encoding_format" in server.requests[0]  # base64: a quarter of the bytes
    assert server.requests[0]["dimensions"] == 16


def test_known_models_need_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    large = embedders.load("openai:text-embedding-3-large?dimensions=1024", cache=False)
    assert (large.dimension, large.max_tokens, large.price) == (1024, 8192, 0.13)
    assert embedders.load("openai:text-embedding-3-large", cache=False).dimension == 3072
    with pytest.raises(UnsupportedError, match="1536"):
        embedders.load("openai:text-embedding-ada-002?dimensions=256")
    with pytest.raises(UnsupportedError, match="256, 512, 1024, 1536"):
        embedders.load("cohere:embed-v4?dimensions=300")
    assert embedders.load("cohere:embed-v4", cache=False).dimension == 1536


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("openai:m?dimensions=many", "must be a number"),
        ("openai:m?dimensions=0", "at least 1"),
        ("openai:m?colour=red", "colour"),
        ("openai:m?rpm=1&rpm=2", "each once"),
        ("openai:m?base_url=http://me:pw@host/v1", "password"),
        ("openai:m?base_url=ftp://host", "address of a server"),
        ("openai:m?timeout=0", "timeout"),
        ("openai:m?price=-1", "price must be 0 or more"),
        ("cohere:embed-v4.0?price=nan", "price must be 0 or more"),
        ("gemini:gemini-embedding-001?price=inf", "price must be 0 or more"),
        ("openai:text-embedding-3-small?max_tokens=0", "max_tokens must be an integer of at least 1"),
        ("cohere:m?max_tokens=-5", "max_tokens must be an integer of at least 1"),
        ("openai:m?parallel=0", "parallel"),
        ("openai:m?cache=http://x", "redis://"),
    ],
)
def test_options_that_make_no_sense(spec: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        embedders.load(spec)


def test_a_fallback_answers_for_a_provider_that_does_not(
    provider: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as other:
        second = make(provider, other, dimensions=8)
        embedder = make(provider, server, dimensions=8, parallel=1, fallback=second)
        assert second.dimension == embedder.dimension == 8
        other.answered.clear()  # of what was asked about the dimension
        server.answered.clear()
        server.faults = [Fault(), *[Fault(503)] * 100]
        vectors = embedder.embed_documents(TEXTS)
        assert np.allclose(vectors, expected(TEXTS), atol=1e-6)
        assert all(server.answered[text] + other.answered[text] == 1 for text in TEXTS)
        assert embedder.usage.fallback == sum(other.answered.values()) > 0
        assert embedder.usage.texts == len(TEXTS)
        assert "did not answer" in caplog.text
        with pytest.raises(InvalidInput, match="its vectors are others"):
            make(provider, server, dimensions=8, fallback=make(provider, other, dimensions=4))


def test_a_fallback_answers_for_a_dead_server_whose_dimension_is_not_known(provider: str, server: Server) -> None:
    gone = make(provider, Server(url="http://127.0.0.1:9"), fallback=make(provider, server))
    assert gone.dimension == 8
    assert np.allclose(gone.embed_documents(TEXTS[:3]), expected(TEXTS[:3]), atol=1e-6)
    assert gone.usage.fallback == 3


def test_a_fallback_of_another_dimension_is_refused(provider: str, server: Server) -> None:
    with serving() as other:
        other.dimension = 6
        embedder = make(provider, server, parallel=1, fallback=make(provider, other))
        assert embedder.dimension == 8
        for before in ([], [Fault()]):  # all texts go to the fallback, or those that the first did not answer
            server.faults = [*before, *[Fault(503)] * 100]
            with pytest.raises(ModelMismatch, match=r"6.* expected.*are not the same model"):
                embedder.embed_documents(TEXTS)
        other.refuse = {"number 3": "contains something forbidden"}
        server.faults = [Fault(503)] * 100
        with pytest.raises(ModelMismatch):
            embedder.embed_documents(TEXTS[:5])


def test_a_first_that_comes_back_with_another_dimension_is_refused(provider: str, server: Server) -> None:
    with serving() as other:
        other.dimension = 6
        embedder = make(provider, server, fallback=make(provider, other))
        server.faults = [Fault(503)] * 8
        assert embedder.dimension == 6  # the fallback's: the first did not answer
        with pytest.raises(ModelMismatch, match=r"8.* expected"):
            embedder.embed_documents(["a"])


def test_retry_after_is_seconds_or_a_date() -> None:
    assert remote.retry_after({"Retry-After": "3"}) == 3
    assert remote.retry_after({"retry-after-ms": "1500", "Retry-After": "3"}) == 1.5
    assert remote.retry_after({"RETRY-AFTER": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert remote.retry_after({"Retry-After": "soon"}) is None
    assert remote.retry_after({}) is None


def test_a_plan_asks_nobody_and_says_what_it_cannot_know(provider: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("some words for a model that nobody knows")
    cached = _cache.Cached(make(provider, server), _cache.connect(tmp_path / "vectors.db"))
    plan = app.plan_files(tmp_path / "docs", tmp_path / "kb", embedder=cached)
    assert (plan.documents, plan.chunks, plan.usage.cached) == (1, 1, 0)
    assert "the dimension of" in plan.unknown[0]
    assert server.requests == []
    assert not (tmp_path / "kb").exists()
    with nearest.open(tmp_path / "kb", embedder=cached) as kb:
        assert kb.plan_files(tmp_path / "docs").unknown == []
        kb.add_files(tmp_path / "docs")


def test_a_collection_tells_an_unknown_model_its_dimension(
    provider: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest.open(tmp_path / "kb", embedder=make(provider, server)).close()
    monkeypatch.setenv("NEAREST_CACHE_DIR", str(tmp_path / "another machine"))
    before = len(server.requests)
    with nearest.open(tmp_path / "kb", embedder=make(provider, server)) as kb:
        assert kb.plan_files(_file(tmp_path, "text")).unknown == []
        assert len(server.requests) == before, "it is known from the collection"
        server.dimension = 4
        with pytest.raises(ModelMismatch, match="another model"):
            kb.add_files(_file(tmp_path, "text"))


def test_the_probe_is_in_the_account(
    provider: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    url = f"{provider}:some-model?base_url={server.url}{PROVIDERS[provider]}&api_key_env=A_KEY&cache=off"
    with nearest.open(tmp_path / "kb", embedder=url) as kb:
        (told,) = kb.info()["queries"].values()
    assert told["requests"] == 1
    assert told["tokens"] > 0


def _file(folder: Path, text: str) -> Path:
    (folder / "a.txt").write_text(text)
    return folder / "a.txt"
