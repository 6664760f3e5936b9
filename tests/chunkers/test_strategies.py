"""Every strategy: what holds between any text and its chunks, and what each promises beyond that."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nearest import chunkers
from nearest.chunkers import _sentences, code
from nearest.contract import Chunk, Document, Float32, Mark
from nearest.errors import InvalidInput
from tests.chunkers.test_chunkers import ANY_TEXT, MONSTERS, TOKENIZERS, WORDS, check
from tests.fakes import HashEmbedder

OVERLAPPING = ("recursive", "tokens", "sentences", "paragraphs", "markdown", "page", "code")
STRATEGIES = (*OVERLAPPING, "semantic")
LANGUAGE = {"code": ",language=python"}

LINES = st.lists(
    st.sampled_from(
        [
            *("# One\n", "## Two ##\n", "Three\n=====\n", "Four\n---\n", "```\n", "~~~\n", "#\n", "\f", "\n", "\n\n"),
            *("A sentence. Another one! e.g. this. J. Smith? 中文。没有。\n", "  - item\n", "word " * 30, "x" * 80),
            *(
                "def f(a):\n    return a\n\n",
                "class C:\n    x = 1\n",
                "    # about g\n    def g(self):\n        pass\n",
            ),
            *("@decorated\n", '"""text"""\n', "if x:\n  y = [\n1,\n  2]\n", "}\n", "é = 'ü'\n", "\\\n", "👩‍👩‍👧\n"),
        ]
    ),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def cut(spec: str, text: str, **facts: Any) -> list[str]:
    """The texts of the chunks of a document, a word a token."""
    embedder = HashEmbedder()
    document = Document("d", text, **facts)
    return [c.text for c in chunkers.make(spec, TOKENIZERS["words"](), embedder).chunk_document(document)]


@given(
    name=st.sampled_from(STRATEGIES),
    text=st.one_of(ANY_TEXT, WORDS, LINES),
    size=st.integers(1, 40),
    overlap=st.integers(0, 39),
    marks=st.lists(st.integers(0, 200), max_size=4),
)
@example(name="page", text="\f\fa\f \f", size=2, overlap=0, marks=[])
@example(name="markdown", text="# A\n\n# B\n\n", size=1, overlap=0, marks=[])
@example(name="sentences", text="中文。" * 30, size=4, overlap=0, marks=[])
@example(name="code", text="é = 1\n\ndef f():\n" + "    x = 'ü'\n" * 20, size=9, overlap=0, marks=[])
def test_any_text(tokenizer: Tokenizer, name: str, text: str, size: int, overlap: int, marks: list[int]) -> None:
    overlap = overlap % size if name in OVERLAPPING else 0
    setting = f",overlap={overlap}" if name in OVERLAPPING else ""
    chunker = chunkers.make(f"{name}:size={size}{setting}{LANGUAGE.get(name, '')}", tokenizer, HashEmbedder())
    known = tuple(Mark(at, page, (f"H{page}",)) for page, at in enumerate(sorted(marks), 1))
    chunks = chunker.chunk_document(Document("d", text, {}, known))
    check(text, chunks, chunker, tokenizer)
    assert chunker.chunk_document(Document("d", text, {}, known)) == chunks


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("monster", MONSTERS)
def test_monstrous_texts(name: str, monster: str) -> None:
    text = MONSTERS[monster][: 60_000 if name == "semantic" else 300_000]
    chunker = chunkers.make(f"{name}:size=240{LANGUAGE.get(name, '')}", TOKENIZERS["model"](), HashEmbedder())
    started = time.process_time()
    chunks = chunker.chunk(text)
    assert time.process_time() - started < 20
    assert chunks == [] if not text.strip() else (chunks[0].start, chunks[-1].end) == (0, len(text))


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_block_length_loses_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# A\n\nOne two three. Four five six.\n\n## B\n\nSeven eight nine ten.\n\f" * 30
    tokenizer = TOKENIZERS["words"]()
    for block in (1, 50, 700):
        monkeypatch.setattr("nearest.chunkers._cut._BLOCK", block)
        chunker = chunkers.make(f"{name}:size=12{LANGUAGE.get(name, '')}", tokenizer, HashEmbedder())
        check(text, chunker.chunk(text), chunker, tokenizer)


# --- tokens, sentences, paragraphs, pages ----------------------------------------------------------


def test_tokens_are_full_wherever_that_cuts() -> None:
    assert cut("tokens:size=4,overlap=1", "a. B\n\nc d e f g h") == ["a. B\n\nc d ", "d e f g ", "g h"]
    chunks = cut("tokens:size=50,overlap=10", "word\n\n" * 500)
    assert {len(chunk.split()) for chunk in chunks[:-1]} == {50}
    assert len(chunks) == 1 + -(-450 // 40)


def test_sentences_stay_whole() -> None:
    text = "One two. Three four five! Six? Seven eight nine ten. Eleven."
    assert cut("sentences:size=5,overlap=0", text) == [
        "One two. Three four five! ",
        "Six? Seven eight nine ten. ",
        "Eleven.",
    ]
    assert cut("sentences:size=6,overlap=1", text) == [
        "One two. Three four five! Six? ",
        "Six? Seven eight nine ten. Eleven.",
    ]
    # Longer than the size: cut inside, and the next sentence begins anew.
    assert cut("sentences:size=3,overlap=0", "a b c d e f g h. I j.") == ["a b c ", "d e f ", "g h. ", "I j."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met J. Doe, i.e. Jane. They left.", ["Dr. Smith met J. Doe, i.e. Jane. ", "They left."]),
        ("Version 3.14 is out. Get it.", ["Version 3.14 is out. ", "Get it."]),
        ('He said "No." Then he left (at last.) End', ['He said "No." ', "Then he left (at last.) ", "End"]),
        ("wait... what? really", ["wait... what? really"]),
        ("一句话。又一句！“三。”四", ["一句话。", "又一句！", "“三。”", "四"]),
        ("A heading\n\nA text without an end\n \nmore", ["A heading\n\n", "A text without an end\n \n", "more"]),
        ("यह है। वह था।", ["यह है। ", "वह था।"]),
        ("هل هذا؟ نعم.", ["هل هذا؟ ", "نعم."]),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    bounds = [0, *_sentences.starts(text), len(text)]
    found = [text[a:b] for a, b in pairwise(bounds)]
    assert [s.strip() for s in found] == [s.strip() for s in sentences]


def test_paragraphs_stay_whole() -> None:
    text = "a b\n\nc d\n \ne f g h i j\n\nk"
    assert cut("paragraphs:size=5", text) == ["a b\n\nc d\n \n", "e f g h i ", "j\n\nk"]
    assert cut("paragraphs:size=5,overlap=2", "a b\n\nc d\n\ne f\n\n") == ["a b\n\nc d\n\n", "c d\n\ne f\n\n"]


def test_pages() -> None:
    assert cut("page:size=9", "a b\fc d\f\fe") == ["a b\f", "c d\f\f", "e"]
    assert cut("page:size=2,overlap=0", "a b c\fd") == ["a b ", "c\f", "d"]
    marks = (Mark(0, 1), Mark(4, 1, ("H",)), Mark(6, 2, ("H",)))
    assert cut("page:size=9", "a b c d e", marks=marks) == ["a b c ", "d e"]


# --- markdown --------------------------------------------------------------------------------------

GUIDE = """# Guide

## Install

Get it.

### From source

Build it yourself, if you must, with all the tools there are.

## Use

```sh
# no heading
```
Run it.
"""


def headed(spec: str, document: Document) -> list[tuple[str, tuple[str, ...]]]:
    chunker = chunkers.make(spec, TOKENIZERS["words"]())
    return [(c.text.split("\n")[0], c.headings) for c in chunker.chunk_document(document)]


def test_markdown_cuts_at_headings() -> None:
    document = Document("d", GUIDE)
    assert headed("markdown:size=100", document) == [("# Guide", ("Guide",))]
    assert headed("markdown:size=20", document) == [
        ("# Guide", ("Guide", "Install")),  # the title has no text of its own
        ("### From source", ("Guide", "Install", "From source")),
        ("## Use", ("Guide", "Use")),
    ]
    assert headed("markdown:size=25", document) == [
        ("# Guide", ("Guide", "Install")),  # with its subsection: they fit
        ("## Use", ("Guide", "Use")),
    ]
    long = headed("markdown:size=8,overlap=0", document)
    assert [path for _, path in long if path[-1] == "From source"] == [("Guide", "Install", "From source")] * 2


def test_markdown_headings() -> None:
    text = (
        "intro\n\nOne\n===\na\n\n#\nb\n\n   ### Deep ###\nc\n\n- item\n---\n\n    # code\n\n| a |\n---\n####### seven\n"
    )
    document = Document("d", text * 3)
    found = [(c.split("\n")[0], path) for c, path in headed("markdown:size=6,overlap=0", document)]
    assert ("One", ("One",)) in found
    assert ("   ### Deep ###", ("Deep",)) in found
    assert {path for _, path in found} <= {(), ("One",), ("Deep",)}


def test_markdown_takes_the_headings_that_a_reader_found() -> None:
    text = "Title\n.....\n\nPart A\n,,,,,,\na b c d e\n\nPart B\n,,,,,,\nf g h\n\nmore of page 2\n"
    b, page = text.index("Part B"), text.index("more")
    marks = (
        Mark(0, 1, ("Title",)),
        Mark(text.index("Part A"), 1, ("Title", "Part A")),
        Mark(b, 1, ("Title", "Part B")),
        Mark(page, 2, ("Title", "Part B")),
    )
    assert headed("markdown:size=12", Document("d", text, {}, marks)) == [
        ("Title", ("Title", "Part A")),
        ("Part B", ("Title", "Part B")),
    ]


def test_other_strategies_know_the_headings_of_the_marks() -> None:
    document = Document("d", "a b c d e f", {}, (Mark(0, 1, ("A",)), Mark(6, 2, ("A", "B"))))
    assert headed("recursive:size=3,overlap=0", document) == [("a b c ", ("A",)), ("d e f", ("A", "B"))]
    assert headed("page:size=3,overlap=0", document) == [("a b c ", ("A",)), ("d e f", ("A", "B"))]


# --- code ------------------------------------------------------------------------------------------

PYTHON = '''"""A module."""

import os

# What f does
# in two lines
def f(a, b):
    return a + b


class Shape:
    """Any."""

    def area(self):
        total = 0
        for side in self.sides:
            total += side * side
        return total

    @property
    def name(self):
        return "shape"
'''


def test_code_cuts_between_definitions() -> None:
    chunker = chunkers.make("code:size=16", TOKENIZERS["words"]())
    chunks = chunker.chunk_document(Document("d", PYTHON, {"language": "python"}))
    assert [(c.text.strip().split("\n")[0], c.headings) for c in chunks] == [
        ('"""A module."""', ()),
        ("# What f does", ("f",)),  # with its comment
        ("class Shape:", ("Shape",)),
        ("def area(self):", ("Shape", "area")),
        ("@property", ("Shape", "name")),
    ]
    assert chunks[3].text.startswith("    def area")  # the line from its start


SOURCES = {
    "bash": "f() {\n  echo one two three\n  echo four\n}\ng() {\n  echo five six seven\n  echo eight\n}\n",
    "c": "/* adds */\nint add(int a, int b) {\n  return a + b;\n}\n\nint sub(int a, int b) {\n  return a - b;\n}\n",
    "cpp": "class A {\n public:\n  int f() {\n    return 1;\n  }\n  int g() {\n    return 2 + 3 + 4;\n  }\n};\n",
    "csharp": "class A {\n  int F() {\n    return 1 + 2 + 3;\n  }\n  int G() {\n    return 2 + 3 + 4;\n  }\n}\n",
    "go": "type A struct {\n\tx int\n\ty int\n}\n\nfunc f(a int) int {\n\tb := a + 1\n\treturn b\n}\n",
    "java": "class A {\n  int f() {\n    return 1 + 2 + 3;\n  }\n  int g() {\n    return 2 + 3 + 4;\n  }\n}\n",
    "javascript": "export class A {\n  f() {\n    return 1 + 2;\n  }\n}\nconst g = () => {\n  return 2 + 3 + 4;\n};\n",
    "kotlin": "class A {\n  fun f(): Int {\n    return 1 + 2 + 3\n  }\n  fun g(): Int {\n    return 2\n  }\n}\n",
    "lua": "function f(a)\n  local b = a + 1\n  return b\nend\n\nfunction g(a)\n  local c = a + 2\n  return c\nend\n",
    "php": "<?php\nclass A {\n  function f() {\n    return 1 + 2;\n  }\n  function g() {\n    return 2 + 3;\n  }\n}\n",
    "python": PYTHON,
    "ruby": "class A\n  def f\n    one = 1 + 2 + 3\n    one\n  end\n  def g\n    two = 2\n    two\n  end\nend\n",
    "rust": "#[derive(Debug)]\nstruct A {\n  x: i32,\n}\n\nimpl A {\n  fn f(&self) -> i32 {\n    self.x + 1\n  }\n}\n",
    "scala": "class A {\n  def f(): Int = {\n    1 + 2 + 3\n  }\n  def g(): Int = {\n    2 + 3 + 4\n  }\n}\n",
    "tsx": "function F(): JSX.Element {\n  const a = 1;\n  return <p>one</p>;\n}\nfunction g() {\n  return 2;\n}\n",
    "typescript": "interface A {\n  x: number;\n  y: string;\n}\nclass B {\n  f(): number {\n    return 1;\n  }\n}\n",
}


@pytest.mark.parametrize("language", code.LANGUAGES)
def test_every_grammar_is_loaded_from_disk_and_names_its_definitions(language: str) -> None:
    text = SOURCES[language]
    chunker = chunkers.make("code:size=10", TOKENIZERS["words"]())
    chunks = chunker.chunk_document(Document("d", text, {"language": language}))
    assert "".join(chunk.text for chunk in chunks) == text
    names = {"f", "A", "F", "add"} if language != "python" else {"Shape"}
    assert names & {name for chunk in chunks for name in chunk.headings}
    assert len(chunks) >= 2


def test_code_of_no_language_known_is_cut_as_recursive_does() -> None:
    text = "a b c d. E f g h\n\ni j k l m"
    for metadata in ({}, {"language": "en"}, {"language": 3}):
        assert cut("code:size=6", text, metadata=metadata) == cut("recursive:size=6,overlap=0", text)


def test_code_that_is_nested_without_end() -> None:
    text = "x = " + "(\n" * 3000 + "1" + "\n)" * 3000
    started = time.process_time()
    chunks = cut("code:size=50,language=python", text)
    assert "".join(chunks) == text
    assert time.process_time() - started < 20


# --- semantic --------------------------------------------------------------------------------------


class Topics(HashEmbedder):
    """The first letter of a sentence is its subject."""

    calls = 0

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        self.calls += 1
        rows = super().embed_documents([text.strip()[0] for text in texts])
        return rows + 0.01 * super().embed_documents(list(texts))


def test_semantic_cuts_where_the_subject_changes() -> None:
    rng = random.Random(3)
    topics = [f"{letter}{rng.randrange(1000)} is told here. " for letter in "AAAAAABBBBBBBCCCCCCDDDDD"]
    text = "".join(topics)
    embedder = Topics(dimension=64)
    chunker = chunkers.make("semantic:size=100,percentile=88,window=2", TOKENIZERS["words"](), embedder)
    chunks = chunker.chunk(text)
    assert ["".join(dict.fromkeys(re.findall(r"[A-D](?=\d)", c.text))) for c in chunks] == ["A", "B", "C", "D"]
    assert embedder.calls == 1  # one batch for all sentences
    # What is too long is cut again, between sentences.
    small = chunkers.make("semantic:size=16,percentile=88,window=2", TOKENIZERS["words"](), embedder).chunk(text)
    assert all(c.text.endswith(". ") and len(set(re.findall(r"[A-D](?=\d)", c.text))) == 1 for c in small)


def test_semantic_needs_the_embedder() -> None:
    with pytest.raises(InvalidInput, match="give it the embedder"):
        chunkers.make("semantic", TOKENIZERS["words"]())


# --- prefix ----------------------------------------------------------------------------------------


def prefixed(spec: str, document: Document) -> list[Chunk]:
    return chunkers.make(spec, TOKENIZERS["words"]()).chunk_document(document)


def test_prefix_says_what_a_chunk_is_about() -> None:
    document = Document("d", GUIDE, {"title": "The Guide"})
    chunks = prefixed("markdown:size=25,overlap=0,prefix=title+headings", document)
    assert [c.prefix for c in chunks] == [
        "The Guide\nGuide > Install\n\n",
        "The Guide\nGuide > Install\n\n",  # its own heading begins the text
        "The Guide\nGuide\n\n",
    ]
    assert chunks[2].embedded == chunks[2].prefix + chunks[2].text
    assert "".join(c.text for c in chunks) == GUIDE  # what is shown is the text
    assert {c.prefix for c in prefixed("recursive:size=25,prefix=title", document)} == {"The Guide\n\n"}
    assert {c.prefix for c in prefixed("whole:prefix=headings", document)} == {""}


@given(
    name=st.sampled_from([*STRATEGIES, "whole"]),
    text=st.one_of(ANY_TEXT, LINES),
    title=st.one_of(ANY_TEXT, st.just("a title of some words " * 9)),
    size=st.integers(20, 60),
)
def test_a_prefix_never_makes_a_chunk_too_long(
    tokenizer: Tokenizer, name: str, text: str, title: str, size: int
) -> None:
    spec = f"{name}:prefix=title+headings" + (f",size={size}" if name != "whole" else "")
    chunker = chunkers.make(spec, tokenizer, HashEmbedder())
    chunks = chunker.chunk_document(Document("d", text, {"title": title}, (Mark(0, 1, (title, "part")),)))
    bare = chunkers.make(f"{name}:size={size - size // 5}" if name != "whole" else name, tokenizer, HashEmbedder())
    assert [c.text for c in chunks] == [
        c.text for c in bare.chunk_document(Document("d", text, {}, (Mark(0, 1, (title, "part")),)))
    ]
    for chunk in chunks:
        if name != "whole" and chunk.prefix and _count(tokenizer, chunk.text) <= size - size // 5:
            assert _count(tokenizer, chunk.embedded) <= size


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_prefix_is_a_setting() -> None:
    words = TOKENIZERS["words"]()
    settings = chunkers.make("recursive:size=100,prefix=title", words).settings
    assert settings == {"name": "recursive", "size": 100, "overlap": 10, "prefix": "title"}
    for spec in ("recursive:prefix=author", "recursive:size=19,prefix=title", "whole:prefix="):
        with pytest.raises(InvalidInput):
            chunkers.make(spec, words)


# --- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *("tokens:size=0", "sentences:overlap=300", "paragraphs:size=x", "page:speed=1", "code:language=klingon"),
        *("semantic:percentile=0", "semantic:percentile=100", "semantic:window=0", "semantic:overlap=3"),
        *("markdown:size=10,overlap=10",),
    ],
)
def test_bad_specs(spec: str) -> None:
    with pytest.raises(InvalidInput):
        chunkers.make(spec, TOKENIZERS["words"](), HashEmbedder())


@pytest.mark.parametrize("name", STRATEGIES)
def test_real_texts(shared_data: Path, name: str) -> None:
    tokenizer = TOKENIZERS["model"]()
    chunker = chunkers.make(name, tokenizer, HashEmbedder())
    for path in sorted((shared_data / "peps" / "files").iterdir())[100:130]:
        text = path.read_text("utf-8")
        check(text, chunker.chunk(text), chunker, tokenizer)
