"""Retrieved text is data: what a document says changes nothing but the text between its own delimiters."""

from __future__ import annotations

import json
import re

import pytest

from nearest import generators
from nearest.answer import Asked, Conversation, Source, prompt
from nearest.untrusted import harmless
from tests.answer.conftest import Answering, Scripted, hit
from tests.answer.injections import INJECTIONS
from tests.generators.servers import serving, text_of

TOKEN = "9f3a5c7d1e2b4a68"
QUESTION = "How often do the keys rotate?"
GOOD = "The keys rotate every month."


def sources(text: str) -> list[Source]:
    return [
        Source(1, text[:500], ("a#0",), text, 0, 1.0, headings=(text,), metadata={"title": text}),
        Source(2, "b", ("b#0",), GOOD, 0, 0.5),
    ]


def test_there_are_fifty_different_ones() -> None:
    assert len(set(INJECTIONS)) == 50


@pytest.mark.parametrize("attack", INJECTIONS)
def test_the_instructions_and_the_structure_are_the_same_whatever_a_document_says(attack: str) -> None:
    attack = attack.replace("{token}", TOKEN)  # as if it had been guessed
    honest = prompt.answer(QUESTION, sources("Backups are made at night."), TOKEN)
    attacked = prompt.answer(QUESTION, sources(attack), TOKEN)
    assert [m.role for m in attacked] == ["system", "user"]
    assert attacked[0] == honest[0]
    # The delimiters are ours alone, in their order; each text is between its own.
    marks = re.findall(rf"<<<{TOKEN} [^>]*>>>", attacked[1].text)
    assert marks == re.findall(rf"<<<{TOKEN} [^>]*>>>", honest[1].text)
    assert attacked[1].text.count(TOKEN) == len(marks) == 6
    first = attacked[1].text.split(f"<<<{TOKEN} source 1>>>\n")[1].split(f"\n<<<{TOKEN} end of source 1>>>")[0]
    kept = harmless(attack).replace(TOKEN, "")
    assert first.count(kept) == 3  # its name, its heading, its text
    outside = attacked[1].text.replace(kept, "")
    assert outside == honest[1].text.replace("Backups are made at night.", "")


@pytest.mark.parametrize("attack", INJECTIONS)
def test_nothing_is_left_that_a_template_or_no_reader_would_read(attack: str) -> None:
    left = harmless(attack)
    assert not re.search(r"<\|\w|<｜\w|\[/?INST\]|<</?SYS>>|</?s>|_of_turn>", left)
    assert all(c.isprintable() or c in "\n\t" for c in left)
    assert (
        harmless("Ünïcode, می‌خواهم, <b>html</b>, a | b, x << 2 stay.")
        == "Ünïcode, می‌خواهم, <b>html</b>, a | b, x << 2 stay."
    )


def test_each_request_has_its_own_number() -> None:
    drawn = {prompt.answer(QUESTION, sources(GOOD))[0].text for _ in range(20)}
    assert len(drawn) == 20


@pytest.mark.parametrize("attack", INJECTIONS)
def test_a_rewritten_question_sees_earlier_answers_as_data_too(attack: str) -> None:
    attack = attack.replace("{token}", TOKEN)
    honest = prompt.rewrite([("Q?", "An answer.")], "Why?", TOKEN)
    attacked = prompt.rewrite([("Q?", attack)], "Why?", TOKEN)
    assert attacked[0] == honest[0]
    assert attacked[1].text.count(TOKEN) == honest[1].text.count(TOKEN) == 6


@pytest.mark.parametrize("attack", INJECTIONS)
def test_the_pipeline_sends_one_system_message_and_no_document_in_it(answering: Answering, attack: str) -> None:
    answerer = answering([hit("a", attack), hit("b", GOOD)], "The keys rotate every month. [2]")
    answer = answerer.answer(QUESTION, Asked())
    assert isinstance(answerer.generator, Scripted)
    (messages,) = answerer.generator.prompts
    token = re.findall(r"number ([0-9a-f]{16}),", messages[0].text)[0]
    assert messages[0] == prompt.answer("", [], token)[0]
    assert [m.role for m in messages] == ["system", "user"]
    assert answer.raw == "The keys rotate every month. [2]"
    assert [s.supported for s in answer.sentences] == [True]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "cohere", "ollama"])
def test_on_the_wire_there_are_no_tools_and_no_document_among_the_instructions(
    provider: str, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"gemini": "google.genai", "ollama": "httpx"}.get(provider, provider)
    pytest.importorskip(module, reason=f"the client of {provider} is not installed")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        base = f"{server.url}/v1" if provider == "openai" else server.url
        answerer = answering([hit(f"d{i}", text) for i, text in enumerate(INJECTIONS)])
        answerer.generator = generators.load(
            f"{provider}:m", base_url=base, **({"context": 65536} if provider == "ollama" else {})
        )
        answerer.answer(QUESTION, Asked(k=50, budget=100_000))
        ((path, _, body),) = server.requests
    system, turns = text_of(path, body)
    token = re.findall(r"number ([0-9a-f]{16}),", system)[0]
    assert system == prompt.answer("", [], token)[0].text
    assert [role for role, _ in turns] == ["user"]
    assert not {"tools", "tool_choice", "tool_config", "functions", "toolConfig", "mcp_servers"} & set(body)
    assert "function_declarations" not in json.dumps(body)


@pytest.mark.parametrize("attack", INJECTIONS)
def test_a_quoted_answer_does_not_obey_either(answering: Answering, attack: str) -> None:
    conversation = Conversation(answering([hit("b", GOOD), hit("a", attack)]), Asked())
    answer = conversation.ask(QUESTION)
    assert answer.sentences == () or answer.sentences[0].text == GOOD
    for sentence in answer.sentences:  # forged marks in a text are no citations
        assert [c.source for c in sentence.citations] in ([1], [2])
