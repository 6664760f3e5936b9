"""Readers: what is read from good files, and that a bad one is a reason, never a crash or a silent loss."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearest import readers
from nearest.contract import Document, Failure, check_document
from nearest.errors import Unreadable
from nearest.readers import _decode


def read(path: Path) -> list[Document | Failure]:
    results = list(readers.for_path(path).read(path, path.name))
    for result in results:
        if isinstance(result, Document):
            check_document(result)
            assert "source" in result.metadata
    return results


def documents(path: Path) -> list[Document]:
    results = read(path)
    assert not [result for result in results if isinstance(result, Failure)]
    return [result for result in results if isinstance(result, Document)]


def one(path: Path, content: str | bytes) -> Document:
    """The only document of a new file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (document,) = documents(path)
    return document


# --- which reader ----------------------------------------------------------------------------------


def test_readers_are_found_by_extension() -> None:
    names = {
        e: type(readers.for_path(Path(f"a{e}"))).__name__ for e in (".md", ".rst", ".py", ".jsonl", ".tsv", ".TXT")
    }
    assert names == {
        ".md": "Markdown",
        ".rst": "RestructuredText",
        ".py": "Python",
        ".jsonl": "Jsonl",
        ".tsv": "Csv",
        ".TXT": "Text",
    }
    assert all(e == e.lower() and e[:1] in ("", ".") for e in readers.extensions())
    assert type(readers.for_path(Path("Makefile"))).__name__ == "Text"


def test_a_file_of_an_unknown_extension_is_read_if_it_is_text(tmp_path: Path) -> None:
    assert one(tmp_path / "a.xyz", "text\n").text == "text\n"
    (tmp_path / "b.xyz").write_bytes(b"\x7fELF\x02")
    with pytest.raises(Unreadable, match=r"looks binary .*no reader knows \.xyz; there are .*\.csv.*\.txt"):
        read(tmp_path / "b.xyz")
    (tmp_path / "c.xyz").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"^is empty$"):
        read(tmp_path / "c.xyz")


# --- encodings -------------------------------------------------------------------------------------

FRENCH = "Le café était fermé à cause de l'été. Où êtes-vous allés ?\nÇa va très bien, merci.\n"
RUSSIAN = "Привет, как дела? Это обычный русский текст, написанный для проверки.\n"
JAPANESE = "これは日本語のテキストです。文字コードの検出を確認します。\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "README"])
def test_unicode(tmp_path: Path, encoding: str, name: str) -> None:
    assert one(tmp_path / name, FRENCH.encode(encoding)).text == FRENCH


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "latin-1"),
        ("“Smart quotes” – it’s common", "cp1252"),
        ("café", "latin-1"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        ("这是一个用于测试编码检测的中文文本。\n", "gb18030"),
        ("Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni i równi.\n", "cp1250"),
        (RUSSIAN, "utf-16"),
        ("x" * 100_000 + FRENCH, "latin-1"),  # what it is shows only after the sample
        (JAPANESE * 3000, "shift_jis"),  # the sample ends inside a character
    ],
)
def test_other_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    assert one(tmp_path / "a.txt", text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings_of_files_read_by_line(tmp_path: Path, encoding: str) -> None:
    lines = "".join(json.dumps({"id": str(i), "text": FRENCH}, ensure_ascii=False) + "\n" for i in range(900))
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    assert [d.text for d in documents(tmp_path / "a.jsonl")] == [FRENCH] * 900
    (tmp_path / "a.csv").write_bytes(f'id,text\n1,"{FRENCH}"\n'.encode(encoding))
    assert [d.text for d in documents(tmp_path / "a.csv")] == [FRENCH]


def test_line_ends_and_controls_stay(tmp_path: Path) -> None:
    text = "a\r\nb\rc\n\x0cd \x1b[31mred\x1b[0m"
    assert one(tmp_path / "a.log", text).text == text


# --- files that cannot be read ---------------------------------------------------------------------

EVERY = ["a.txt", "a.md", "a.rst", "a.py", "a.jsonl", "a.csv", "README"]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xff\xfe", "empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(50), "binary .*program"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "binary .*PDF"),
        (gzip.compress(b"text", mtime=0), "binary .*gzip"),
        (bytes(range(256)) * 20, "binary .*NUL"),
        (bytes(range(1, 256)) * 20, "binary .*control"),
        (b"text and\0" * 100, "binary .*NUL"),
    ],
)
def test_empty_and_binary(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read(path)


@pytest.mark.parametrize("name", EVERY)
def test_what_the_system_refuses(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(Unreadable, match="could not be read: No such file"):
        read(path)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Unreadable, match="could not be read: No such file"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Unreadable, match="is a folder"):
        read(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(Unreadable, match="not a regular file"):
        read(path)


def test_a_file_of_another_user(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(Unreadable, match="could not be read: Permission denied"):
        read(path)


def test_a_disk_that_fails_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")

    def broken(self: Path, *args: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(Unreadable, match="could not be read: Input/output error"):
        read(path)


def test_damaged_utf8_is_told_from_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((JAPANESE * 10).encode()[:-2])
    with pytest.raises(Unreadable, match="damaged: not utf-8 at byte"):
        read(path)
    path.write_bytes(FRENCH.encode("utf-16")[:-1])
    with pytest.raises(Unreadable, match="damaged: not utf-16-le"):
        read(path)


def test_a_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decode, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.txt"
    path.write_text("a" * (1 << 20))
    assert len(documents(path)) == 1
    path.write_text("a" * (1 << 20) + "b")
    with pytest.raises(Unreadable, match="over 1 MiB"):
        read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=300), name=st.sampled_from(EVERY))
def test_any_bytes_give_documents_or_reasons(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with suppress(Unreadable):
        assert read(path) or name == "a.csv"  # which may hold nothing but its header


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).filter(str.strip))
def test_any_unicode_text_comes_back(tmp_path: Path, text: str) -> None:
    text = text.removeprefix("\ufeff") or "x"
    if not text.strip():
        return
    assert one(tmp_path / "a.txt", text).text == text


# --- Markdown, reStructuredText, Python -------------------------------------------------------------


def test_markdown(tmp_path: Path) -> None:
    text = "Intro\n\n```sh\n# not a heading\n```\n\n## The *title* ##\n\n# Later\n"
    document = one(tmp_path / "a.md", text)
    assert document.text == text
    assert document.metadata == {"source": "a.md", "title": "The *title*"}
    assert one(tmp_path / "b.md", "A title\n=======\n\n# No\n").metadata["title"] == "A title"
    assert "title" not in one(tmp_path / "c.md", "- item\n---\n#hashtag\n").metadata


def test_markdown_front_matter(tmp_path: Path) -> None:
    front = (
        "---\ntitle: 'It''s: here'\ndate: 2024-05-31\nweight: 3\nratio: 0.5\ndraft: false\nby: \"A, B\"\nnone:\n"
        "code: 007\nlow: -4\n---\n"
    )
    document = one(tmp_path / "a.md", front + "# Heading\n\nBody.\n")
    assert document.text == "# Heading\n\nBody.\n"
    assert document.metadata == {
        "source": "a.md",
        "title": "It's: here",
        "date": "2024-05-31",
        "weight": 3,
        "ratio": 0.5,
        "draft": False,
        "by": "A, B",
        "none": None,
        "code": "007",
        "low": -4,
    }


@pytest.mark.parametrize(
    "front",
    [
        "tags: [a, b]",
        "tags:\n- a\n- b",
        "a:\n  b: c",
        "a: |\n  text",
        "a: *reference",
        "a: b # comment",
        "a: b: c",
        "a: 1\na: 2",
        "Just prose.",
    ],
)
def test_front_matter_that_needs_yaml_stays_text(tmp_path: Path, front: str) -> None:
    text = f"---\n{front}\n---\n\n# Heading\n"
    document = one(tmp_path / "a.md", text)
    assert document.text == text
    assert document.metadata == {"source": "a.md", "title": "Heading"}


def test_front_matter_alone_or_open_stays_text(tmp_path: Path) -> None:
    for text in ("---\ntitle: x\n---\n", "---\ntitle: x\n\ntext\n", "---\n---\ntext"):
        assert one(tmp_path / "a.md", text).text == text


def test_rst(tmp_path: Path) -> None:
    text = ".. comment\n\n=======\n Title\n=======\n\nSection\n-------\n"
    document = one(tmp_path / "a.rst", text)
    assert document.text == text
    assert document.metadata == {"source": "a.rst", "title": "Title"}
    assert one(tmp_path / "b.rst", "Some text\n\nSection\n~~~~~~~\n").metadata["title"] == "Section"
    assert "title" not in one(tmp_path / "c.rst", "Text\n\n----\n\nMore\n").metadata
    fields = ":Author: Me\n:Version: 1.10\n\nTitle\n=====\n"
    assert one(tmp_path / "d.rst", fields).metadata == {
        "source": "d.rst",
        "title": "Title",
        "author": "Me",
        "version": "1.10",
    }
    assert one(tmp_path / "e.rst", "Note: this is prose.\nIt goes on.\n").metadata == {"source": "e.rst"}


def test_peps(shared_data: Path) -> None:
    files = sorted((shared_data / "peps" / "files").iterdir())
    for path in files:
        (document,) = documents(path)
        assert document.text == path.read_text("utf-8")
        assert document.metadata["pep"] == str(int(path.stem.removeprefix("pep-")))
        assert document.metadata["title"]
        assert document.metadata["status"]
    eight = next(path for path in files if path.name == "pep-0008.rst")
    metadata = documents(eight)[0].metadata
    assert metadata["title"] == "Style Guide for Python Code"
    assert metadata["author"].endswith("Barry Warsaw <barry@python.org>, Alyssa Coghlan <ncoghlan@gmail.com>")
    assert metadata["created"] == "05-Jul-2001"


def test_python(tmp_path: Path) -> None:
    text = '#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n"""\n  What it does.\n\n  More.\n"""\nx = 1\n'
    document = one(tmp_path / "a.py", text)
    assert document.text == text
    assert document.metadata == {"source": "a.py", "language": "python", "title": "What it does."}
    assert one(tmp_path / "b.py", 'r"One line"\n').metadata["title"] == "One line"
    for no_docstring in ("x = 1\n", 'x = """not"""\n', '"""open', '""\n'):
        assert "title" not in one(tmp_path / "c.py", no_docstring).metadata
    assert one(tmp_path / "d.py", '"""Doc."""\ndef broken(:\n').metadata["title"] == "Doc."


def test_python_declares_its_encoding(tmp_path: Path) -> None:
    text = "# coding: {}\nname = 'Привет'\n"
    for encoding in ("cp1251", "koi8-r", "iso8859-5", "utf-8"):
        assert one(tmp_path / "a.py", text.format(encoding).encode(encoding)).text == text.format(encoding)
    wrong = "# coding: no-such\nname = 'café'\n"
    assert one(tmp_path / "a.py", wrong).text == wrong
    assert one(tmp_path / "a.py", wrong.encode("latin-1")).text == wrong
    rot = "# coding: rot13\nx = 1\n"
    assert one(tmp_path / "a.py", rot).text == rot


# --- JSONL -----------------------------------------------------------------------------------------


def test_jsonl_of_beir(shared_data: Path) -> None:
    found = documents(shared_data / "scifact" / "corpus.jsonl")
    assert len(found) == 5183
    first = found[0]
    assert first.id == "4983"
    assert first.text.startswith("Microstructural development of human newborn")
    assert "imaging.\n\nAlterations of the architecture" in first.text
    assert first.metadata["title"].startswith("Microstructural")
    assert first.metadata["year"] == 1998
    assert len({document.id for document in found}) == 5183
    xquad = documents(shared_data / "xquad" / "corpus.jsonl")
    assert len(xquad) == 2880
    assert "title" not in xquad[0].metadata
    assert xquad[0].metadata["lang"] == "en"


def test_jsonl_forms(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"_id": "a", "title": "T", "text": "T and more"},
        {"id": 7, "text": "x", "year": 1999, "metadata": {"year": 2000, "deep": {"k": [1, None]}}},
        {"text": "no id", "source": "https://a.example"},
        {"_id": "b", "id": "other", "title": "T", "text": ""},
        {"_id": "c", "content": "x", "title": 5, "metadata": None},
        {"_id": "d", "body": "x", "metadata": "plain"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert documents(path) == [
        Document("a", "T and more", {"source": "a.jsonl", "title": "T"}),
        Document("7", "x", {"source": "a.jsonl", "year": 2000, "deep": {"k": [1, None]}}),
        Document("a.jsonl#5", "no id", {"source": "https://a.example"}),
        Document("b", "T", {"source": "a.jsonl", "id": "other", "title": "T"}),
        Document("c", "x", {"source": "a.jsonl", "title": 5, "metadata": None}),
        Document("d", "x", {"source": "a.jsonl", "metadata": "plain"}),
    ]


def test_a_bad_line_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decode, "MAX_LINE", 100_000)
    bad: dict[str | bytes, str] = {
        "{": "not JSON",
        "[1]": "list, not an object",
        '"text"': "str, not an object",
        '{"_id": "i"}': "has no 'text'",
        '{"_id": "i", "text": " "}': "no text",
        '{"_id": "i", "text": 5}': "text is int, not a string",
        '{"_id": "i", "text": ["a"]}': "text is list",
        '{"_id": "i", "text": "x", "n": NaN}': "NaN is no JSON number",
        '{"_id": "i", "text": "x", "n": [-Infinity]}': "-Infinity",
        '{"_id": "i", "text": "x", "n": 1e999}': "inf",
        '{"_id": "i", "text": "x", "n": 99999999999999999999}': "over 64 bits",
        '{"_id": "i", "text": "x", "n": ' + "9" * 5000 + "}": "not JSON",
        '{"_id": "i", "text": "\\ud800"}': "lone surrogate",
        '{"_id": 1.5, "text": "x"}': "id must be a string",
        '{"_id": true, "text": "x"}': "id must be a string",
        '{"_id": "' + "i" * 513 + '", "text": "x"}': "513 characters",
        '{"_id": "i", "text": "x", "n": ' + "[" * 40_000 + "]" * 40_000 + "}": "nested",
        '{"_id": "i", "text": "x", "n": ' + "[" * 70 + "]" * 70 + "}": "nested",
        '{"_id": "i", "text": "' + "x" * 100_000 + '"}': "over",
        b'{"_id": "i", "text": "caf\xe9"}': "surrogate",
    }
    good = b'{"_id": "good", "text": "x"}'
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        for line in bad:
            file.write(line.encode() if isinstance(line, str) else line)
            file.write(b"\r\n" + good + b"\n")
    results = read(path)
    assert [r.id for r in results if isinstance(r, Document)] == ["good"] * len(bad)
    failures = [r for r in results if isinstance(r, Failure)]
    assert len(failures) == len(bad)
    for number, (failure, reason) in enumerate(zip(failures, bad.values(), strict=True)):
        assert reason in failure.reason
        assert f"line {2 * number + 1}:" in failure.reason
        assert failure.id in ("i", f"a.jsonl#{2 * number + 1}")


def test_equal_ids_are_all_given(tmp_path: Path) -> None:
    """Which of them stays is for the one who indexes."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "1"}\n{"id": "a", "text": "2"}\n')
    assert [d.text for d in documents(path)] == ["1", "2"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_memory_stays_flat(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("w") as file:
        file.write("id,text\n" if name == "a.csv" else "")
        for i in range(20_000):
            text = "word " * 100
            file.write(f"{i},{text}\n" if name == "a.csv" else json.dumps({"id": i, "text": text}) + "\n")
    tracemalloc.start()
    count = sum(1 for _ in readers.for_path(path).read(path, "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert path.stat()[stat.ST_SIZE] > 5 * peak


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_without_an_end_costs_itself_and_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    good = "g,good\n" if name == "a.csv" else '{"id": "g", "text": "good"}\n'
    with path.open("w") as file:
        file.write("id,text\n" if name == "a.csv" else "")
        for _ in range(10):
            file.write("[[], " * (1 << 20))
        file.write("\n" + good)
        if name == "a.csv":  # a row over lines
            file.write('r,"' + ("x" * 1000 + "\n") * 9000 + '"\n' + good)
    tracemalloc.start()
    results = list(readers.for_path(path).read(path, "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    failed = [result.reason for result in results if isinstance(result, Failure)]
    assert "over 8 million characters" in failed[0]
    assert any(isinstance(result, Document) and result.id == "g" for result in results)
    assert peak < 100e6
    if name == "a.csv":
        assert [reason.partition(":")[0] for reason in failed[:2]] == ["line 2", "line 4"]


def test_a_header_of_very_many_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("," * 2_000_000 + "\n1\n")
    with pytest.raises(Unreadable, match="2,000,001 columns, over 10,000"):
        read(tmp_path / "a.csv")


# --- CSV -------------------------------------------------------------------------------------------


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'ID,Title,Text,Year,Price,Code,Note,\n1,"A, B","line one\nline two",1999,-1.50,007,,x\n\n2,,"say ""hi""",1e5\n'
    )
    assert documents(path) == [
        Document(
            "1",
            "A, B\n\nline one\nline two",
            {
                "source": "a.csv",
                "title": "A, B",
                "Year": 1999,
                "Price": -1.5,
                "Code": "007",
                "Note": None,
                "column 8": "x",
            },
        ),
        Document(
            "2",
            'say "hi"',
            {"source": "a.csv", "Year": "1e5", "Price": None, "Code": None, "Note": None, "column 8": None},
        ),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    rows = [["id", "text", "n"], ["a", "one, two; three", "1"], ["b", "a tab\tand a | bar", "2"]]
    path.write_text("\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows))
    assert [(d.id, d.text, d.metadata["n"]) for d in documents(path)] == [
        ("a", "one, two; three", 1),
        ("b", "a tab\tand a | bar", 2),
    ]


def test_csv_without_ids_or_a_text_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('year,abstract\n1999,"first\none"\n2000,second\n')
    assert [(d.id, d.text) for d in documents(path)] == [("a.csv#2", "first\none"), ("a.csv#4", "second")]
    for content in ("a,b\n1,2\n", "id\nx\n"):
        path.write_text(content)
        with pytest.raises(Unreadable, match="has no column named text, content, body; it has"):
            read(path)
    path.write_text("text,Text\nx,y\n")
    with pytest.raises(Unreadable, match="'text' twice"):
        read(path)
    path.write_text("text\nx\ny\n")
    assert [d.text for d in documents(path)] == ["x", "y"]


def test_csv_with_several_columns_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,question,answer,year\na,"How, then?",007,1999\nb,Why?,Because,\nc,,,5\nd,,so,\n')
    assert read(path) == [
        Document(
            "a",
            "question: How, then?\nanswer: 007",
            {"source": "a.csv", "question": "How, then?", "answer": "007", "year": 1999},
        ),
        Document(
            "b",
            "question: Why?\nanswer: Because",
            {"source": "a.csv", "question": "Why?", "answer": "Because", "year": None},
        ),
        Failure("c", "line 4: no text"),
        Document("d", "answer: so", {"source": "a.csv", "question": None, "answer": "so", "year": None}),
    ]
    path.write_text("title,abstract,venue\nT,x,y\n")
    assert [d.text for d in documents(path)] == ["T\n\nabstract: x\nvenue: y"]


def test_a_bad_row_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\na,x\nb,y,z\n"c" d,y\nd,\ne,caf\xc3\xa9\nf,bad \xff\ng,x\n"h,never\nclosed\n')
    results = read(path)
    assert [r.id for r in results if isinstance(r, Document)] == ["a", "e", "g"]
    failures = {r.id: r.reason for r in results if isinstance(r, Failure)}
    assert set(failures) == {"a.csv#3", "a.csv#4", "d", "f", "a.csv#9"}
    assert "3 cells, the header 2" in failures["a.csv#3"]
    assert "expected after" in failures["a.csv#4"]
    assert "no text" in failures["d"]
    assert "surrogate" in failures["f"]
    assert "never closed" in failures["a.csv#9"]


def test_csv_cells_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\na," + "x" * 500_000 + "\n")  # over the csv module's own limit
    assert len(documents(path)[0].text) == 500_000
