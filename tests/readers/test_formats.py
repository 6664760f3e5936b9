"""The formats of the extra `readers`: what is kept of a good file, and that a bad or hostile one is a reason."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nearest import readers
from nearest.contract import Document, Failure, check_document
from nearest.errors import MissingDependency, Unreadable
from nearest.readers import _extra, _isolated
from nearest.readers._markup import Markup
from nearest.readers.html import parse

docx = pytest.importorskip("docx", reason="needs the extra `readers`")
openpyxl = pytest.importorskip("openpyxl", reason="needs the extra `readers`")
pa = pytest.importorskip("pyarrow", reason="needs the extra `readers`")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `readers`")
pptx = pytest.importorskip("pptx", reason="needs the extra `readers`")
pypdf = pytest.importorskip("pypdf", reason="needs the extra `readers`")
pytest.importorskip("trafilatura", reason="needs the extra `readers`")


def read(path: Path, *passwords: str) -> list[Document | Failure]:
    results = list(readers.for_path(path, passwords).read(path, path.name))
    for result in results:
        if isinstance(result, Document):
            check_document(result)
            assert result.metadata["source"]
    return results


def one(path: Path, content: bytes | str | None = None, *passwords: str) -> Document:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (document,) = read(path, *passwords)
    assert isinstance(document, Document), document
    return document


def places(document: Document) -> dict[str, Any]:
    """Where each line of a text stands."""
    found: dict[str, Any] = {}
    at = 0
    for line in document.text.split("\n"):
        for part in line.split("\f"):
            place = document.place(at)
            found[part] = (place.get("page"), " / ".join(place.get("headings", [])))
            at += len(part) + 1
    return found


# --- Markdown, reStructuredText ----------------------------------------------------------------------


def test_headings_of_markdown(tmp_path: Path) -> None:
    text = "intro\n\n# A\n\na\n\n## B\n\nb\n\n```\n# code\n```\n\n### C\nc\n\n## D ##\nd\n\nE\n=\ne\n\nF\n---\nf\n"
    where = {line: place[1] for line, place in places(one(tmp_path / "a.md", text)).items()}
    assert where["intro"] == ""
    assert {line: where[line] for line in ("a", "b", "# code", "### C", "c", "d", "E", "e", "f")} == {
        "a": "A", "b": "A / B", "# code": "A / B", "### C": "A / B / C", "c": "A / B / C", "d": "A / D",
        "E": "E", "e": "E", "f": "E / F",
    }  # fmt: skip


def test_headings_of_rst(tmp_path: Path) -> None:
    text = "====\nDoc\n====\n\nx\n\nOne\n===\n\na\n\nSub\n~~~\n\nb\n\nTwo\r\n===\r\n\r\nc\n\n=== ===\n1   2\n"
    where = {line.strip(): place[1] for line, place in places(one(tmp_path / "a.rst", text)).items()}
    assert {line: where[line] for line in ("x", "One", "a", "b", "c")} == {
        "x": "Doc", "One": "Doc / One", "a": "Doc / One", "b": "Doc / One / Sub", "c": "Doc / Two",
    }  # fmt: skip


def test_sections_of_peps(shared_data: Path) -> None:
    eight = one(shared_data / "peps" / "files" / "pep-0008.rst")
    at = eight.text.index("import os\n")
    assert eight.place(at) == {"headings": ["Code Lay-out", "Imports"]}


# --- HTML ------------------------------------------------------------------------------------------

PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!doctype html><html lang="en-GB"><head><title>Keys | Example</title>
<meta name="author" content="Ann Lee"><meta property="article:published_time" content="2024-03-05T10:00:00+01:00">
</head><body><nav><a href="/">Home</a> <a href="/all">Menu item</a></nav><main><h1>Rotating keys</h1>
<p>First <b>bold</b> paragraph,
   long enough to be what this page is about, with a <a href="x">link</a> &amp; more.</p>
<h2>On Linux</h2><p>Use the package manager and wait until it has finished, which takes a minute.</p>
<pre><code>pip install it
    indented = 1</code></pre>
<ul><li>the first item</li><li><p>the second item</p></li></ul>
<table><tr><th>Name</th><th>Size</th></tr><tr><td>one</td><td>2</td></tr></table>
</main><script>var secret = 1</script><footer>Copyright</footer></body></html>"""


def test_html(tmp_path: Path) -> None:
    document = one(tmp_path / "a.html", PAGE)
    assert document.metadata == {
        "source": "a.html", "title": "Rotating keys", "author": "Ann Lee", "created": "2024-03-05", "language": "en-GB",
    }  # fmt: skip
    assert "First bold paragraph, long enough to be what this page is about, with a link & more." in document.text
    assert "pip install it\n    indented = 1" in document.text
    assert "- the first item\n- the second item" in document.text
    assert "Name | Size\none | 2" in document.text
    assert not {"Menu item", "Copyright", "secret"} & set(document.text.split("\n"))
    assert "secret" not in document.text
    where = places(document)
    assert where["    indented = 1"] == (None, "Rotating keys / On Linux")
    assert where["# Rotating keys"] == (None, "Rotating keys")


def test_html_without_main_content_is_read_whole(tmp_path: Path) -> None:
    assert one(tmp_path / "a.htm", "<title>T</title><p>hi</p><h3>there</h3>").text == "hi\n\n### there"
    for empty in ("<html></html>", "<!-- -->", "<html><body><script>x()</script></body></html>"):
        (tmp_path / "b.html").write_text(empty)
        with pytest.raises(Unreadable, match=r"no text|no content"):
            read(tmp_path / "b.html")


def test_a_short_page_is_read_without_its_menu(tmp_path: Path) -> None:
    links = "".join(f"<li><a href='/{i}'>Menu <b>entry</b> {i}</a></li>" for i in range(20))
    menu, body = f"<ul>{links}</ul>", "<h1>Opening hours</h1><p>Monday to Friday.</p>"
    text = "# Opening hours\n\nMonday to Friday."
    for page in (
        f"{menu}<main>{body}</main>",
        f"<header>{menu}</header><article>{body}</article><footer>Imprint</footer>",
        f"<nav>{menu}</nav><div>{body}</div><aside>Advertisement</aside>",
        f"<div>{menu}</div><div>{body}</div><div role='contentinfo'>Imprint</div>",
        f"{menu}<div role='main'><article>{body}</article></div>",
    ):
        assert one(tmp_path / "a.html", f"<html><body>{page}</body></html>").text == text
    assert "Menu entry 7" in one(tmp_path / "a.html", f"<html><body>{menu}</body></html>").text, "there is no other"


def test_html_that_is_nested_deeply_loses_nothing(tmp_path: Path) -> None:
    """libxml2 stops at 256 levels unless told otherwise, and what comes after would be lost without a word."""
    page = "<p>before</p>" + "<font>" * 600 + "<p>inside</p>" + "<p>after</p>"  # never closed, as old pages have it
    assert one(tmp_path / "a.html", page).text.split() == ["before", "inside", "after"]
    with pytest.raises(Unreadable, match="nested too deeply"):
        one(tmp_path / "a.html", page.replace("<p>inside", "<div>" * 200_000 + "<p>inside"))


def test_html_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    page = '<html><head><meta charset="{}"></head><body><p>Привет, как дела?</p></body></html>'
    for encoding in ("koi8-r", "cp1251", "utf-8"):
        assert "Привет" in one(tmp_path / "a.html", page.format(encoding).encode(encoding)).text


def test_markup() -> None:
    markup = Markup()
    markup.add(
        parse(
            "<div>a<p>b<br>c</p>d<ol><li><h2>T</h2><div>e</div><li>f<ul><li>g</ul></ol><td>x<dl><dt>y<dd>z</dl></div>"
        )
    )
    assert markup.text == "a\n\nb\nc\n\nd\n\n## T\n\ne\n\n- f\n- g\n\nx\n\ny\n\nz"
    assert markup.headings == [(markup.text.index("## T"), 2, "T")]


# --- PDF -------------------------------------------------------------------------------------------


def test_every_pdf_sample_ends_as_text_or_as_a_reason(shared_data: Path) -> None:
    reasons: dict[str, str] = {}
    texts: dict[str, Document] = {}
    for path in sorted((shared_data / "pdf_samples").glob("*.pdf")):
        try:
            texts[path.name] = one(path)
        except Unreadable as error:
            reasons[path.name.rpartition("__")[2]] = str(error)
    assert {name: reason[:25] for name, reason in reasons.items()} == {
        "libreoffice-writer-password.pdf": "is encrypted; give its pa",
        "imagemagick-ASCII85Decode.pdf": "has no text: its pages ar",
        "imagemagick-CCITTFaxDecode.pdf": "has no text: its pages ar",
        "imagemagick-lzw.pdf": "has no text: its pages ar",
        "unreadablemetadata.pdf": "is damaged: Invalid objec",
        "grayscale-image.pdf": "has no text: its pages ar",
        "cmyk-image.pdf": "has no text: its pages ar",
    }
    assert len(texts) + len(reasons) == 31
    book = texts["009-pdflatex-geotopo__GeoTopo-komprimiert.pdf"]
    assert book.metadata["pages"] == 117
    assert (book.metadata["title"], book.metadata["author"]) == ("Geometrie und Topologie", "Martin Thoma")
    assert book.metadata["created"] == "2016-12-31T18:43:23+01:00"
    assert book.text.count("\f") == 116
    last = book.place(len(book.text) - 1)
    assert last["page"] == 117
    xmp = texts["020-xmp__output_with_metadata_pymupdf.pdf"]
    assert (xmp.metadata["title"], xmp.metadata["author"]) == ("Sample PDF with XMP Metadata", "John Doe")
    outlined = texts["006-pdflatex-outline__pdflatex-outline.pdf"]
    assert {place["page"] for place in map(outlined.place, range(0, len(outlined.text), 50))} == {1, 2, 3, 4}
    assert any(mark.headings for mark in outlined.marks)
    assert any(len(mark.headings) > 1 for mark in book.marks)
    for mark in outlined.marks:
        assert outlined.place(mark.start)["page"] == mark.page


def test_a_pdf_with_a_password(shared_data: Path) -> None:
    (path,) = (shared_data / "pdf_samples").glob("005-*.pdf")
    assert one(path, None, "wrong", "openpassword").text
    with pytest.raises(Unreadable, match="none of the 2 passwords opens it"):
        read(path, "wrong", "more")


def test_damaged_pdfs_are_reasons(tmp_path: Path, shared_data: Path) -> None:
    whole = next((shared_data / "pdf_samples").glob("004-*.pdf")).read_bytes()
    path = tmp_path / "a.pdf"
    for damaged in (b"", b"%PDF-1.4\n", b"no PDF", whole[:3000], whole[:100] + os.urandom(5000), whole[5000:]):
        path.write_bytes(damaged)
        with pytest.raises(Unreadable):
            read(path)


def pdf(*objects: bytes) -> bytes:
    """A file of these objects, numbered from 1; the first is the catalog."""
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, 2)
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    at = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer\n<</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, at))
    return out.getvalue()


def test_a_pdf_whose_pages_are_their_own_parents(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(
        pdf(
            b"<</Type/Catalog /Pages 2 0 R /Outlines 2 0 R>>",
            b"<</Type/Pages /Count 9 /Kids [2 0 R 2 0 R] /Parent 2 0 R>>",
        )
    )
    with pytest.raises(Unreadable):
        read(tmp_path / "a.pdf")


def test_a_pdf_that_expands_beyond_its_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    stream = b"<</Length %d /Filter /FlateDecode>>\nstream\n%s\nendstream" % (len(bomb), bomb)
    page = b"<</Type/Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R>>"
    (tmp_path / "a.pdf").write_bytes(
        pdf(b"<</Type/Catalog /Pages 2 0 R>>", b"<</Type/Pages /Count 1 /Kids [3 0 R]>>", page, stream)
    )
    with pytest.raises(Unreadable):
        read(tmp_path / "a.pdf")


# --- Office ----------------------------------------------------------------------------------------


def test_docx(tmp_path: Path) -> None:
    file = docx.Document()
    file.core_properties.title, file.core_properties.author = "The title", "Ann Lee"
    file.core_properties.created = datetime(2024, 3, 5, 10, 0, tzinfo=UTC)
    file.core_properties.modified = datetime(2024, 3, 6, 10, 0)
    file.core_properties.language = "en"
    file.add_heading("Guide", 0)
    file.add_paragraph("before")
    file.add_heading("Keys", 1)
    file.add_paragraph("one\ttwo\nthree")
    file.add_paragraph("item a", style="List Bullet")
    file.add_paragraph("item b", style="List Bullet")
    table = file.add_table(rows=2, cols=2)
    for i, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"cell {i}"
    file.add_heading("Rotation", 2)
    file.add_paragraph("last")
    file.save(str(tmp_path / "a.docx"))
    document = one(tmp_path / "a.docx")
    assert document.text == (
        "# Guide\n\nbefore\n\n# Keys\n\none\ttwo\nthree\n\n- item a\n- item b\n\n"
        "cell 0 | cell 1\ncell 2 | cell 3\n\n## Rotation\n\nlast"
    )
    assert document.metadata == {
        "source": "a.docx", "title": "The title", "author": "Ann Lee", "created": "2024-03-05T10:00:00+00:00",
        "modified": "2024-03-06T10:00:00+00:00", "language": "en",
    }  # fmt: skip
    assert places(document)["last"] == (None, "Keys / Rotation")
    docx.Document().save(str(tmp_path / "b.docx"))
    with pytest.raises(Unreadable, match="no text"):
        read(tmp_path / "b.docx")


def test_a_table_in_a_table_of_docx_is_read_once(tmp_path: Path) -> None:
    file = docx.Document()
    table = file.add_table(rows=2, cols=2)
    for i, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"outer {i}"
    inner = table.cell(0, 1).add_table(rows=2, cols=2)
    for i, cell in enumerate(cell for row in inner.rows for cell in row.cells):
        cell.text = f"inner {i}"
    # Word puts a row into a content control of its own.
    row = table.rows[1]._tr
    wrapper, content = (row.makeelement(row.tag[:-2] + name) for name in ("sdt", "sdtContent"))
    row.addprevious(wrapper)
    wrapper.append(content)
    content.append(row)
    file.save(str(tmp_path / "a.docx"))
    assert one(tmp_path / "a.docx").text == ("outer 0 | outer 1 inner 0 inner 1 inner 2 inner 3\nouter 2 | outer 3")


def test_pptx(tmp_path: Path) -> None:
    file = pptx.Presentation()
    first = file.slides.add_slide(file.slide_layouts[1])
    first.shapes.title.text = "Why"
    first.placeholders[1].text = "because\nof this"
    first.notes_slide.notes_text_frame.text = "say hello"
    second = file.slides.add_slide(file.slide_layouts[6])
    table = second.shapes.add_table(1, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "in a group"
    file.core_properties.title = "Talk"
    file.save(str(tmp_path / "a.pptx"))
    document = one(tmp_path / "a.pptx")
    assert document.text == "# Why\n\nbecause\nof this\n\nNotes: say hello\fleft | right\n\nin a group"
    assert (document.metadata["title"], document.metadata["pages"]) == ("Talk", 2)
    assert places(document)["of this"] == (1, "Why")
    assert places(document)["in a group"] == (2, "Why")
    pptx.Presentation().save(str(tmp_path / "b.pptx"))
    with pytest.raises(Unreadable, match="no text"):
        read(tmp_path / "b.pptx")


def test_xlsx(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in (["Name", "Price", "Since", None], ["Tea", 2.0, datetime(2024, 3, 5)], [], ["Salt", 0.5, None, "rare"]):
        sheet.append(row)
    book.create_sheet("Empty")
    book.create_sheet("Header").append(["only", "names"])
    book.properties.title = "Shop"
    book.save(tmp_path / "a.xlsx")
    first, second = read(tmp_path / "a.xlsx")
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.id, first.text) == (
        "a.xlsx#Prices", "Name: Tea | Price: 2 | Since: 2024-03-05\nName: Salt | Price: 0.5 | rare",
    )  # fmt: skip
    assert (first.metadata["sheet"], first.metadata["title"]) == ("Prices", "Shop")
    assert first.place(0) == {"headings": ["Prices"]}
    assert (second.id, second.text) == ("a.xlsx#Header", "only | names")
    openpyxl.Workbook().save(tmp_path / "b.xlsx")
    with pytest.raises(Unreadable, match="no values"):
        read(tmp_path / "b.xlsx")


def test_an_xlsx_with_cells_far_apart(tmp_path: Path) -> None:
    """A million rows between two cells, and a cell in the last column: neither costs the time that a file may take."""
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Name", "Price"], ["Tea", 2]):
        sheet.append(row)
    sheet.cell(3, 16_384, "beyond what is read")
    sheet.cell(4, 1_000, "far")
    sheet.cell(1_048_576, 1, "stray")
    book.save(tmp_path / "a.xlsx")
    reader = _isolated.Isolated("xlsx", readers.extensions()[".xlsx"], seconds=10.0)  # filled up they took 30
    (document,) = reader.read(tmp_path / "a.xlsx", "a")
    assert getattr(document, "text", "") == "Name: Tea | Price: 2\nfar\nName: stray"


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.epub", "a.zip", "a.parquet"])
def test_what_is_no_such_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("strange.png", b"\0")
    for content in (b"", b"PK\x03\x04 damaged", b"plain text", other.getvalue(), other.getvalue()[:40]):
        path.write_bytes(content)
        with pytest.raises(Unreadable):
            read(path)
    path.unlink()
    with pytest.raises(Unreadable, match="could not be read: No such file"):
        read(path)


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 50}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)


@pytest.mark.parametrize(("name", "part"), [
    ("a.docx", "word/document.xml"), ("a.pptx", "ppt/presentation.xml"), ("a.xlsx", "xl/worksheets/sheet1.xml"),
    ("a.xlsx", "xl/workbook.xml"), ("a.epub", "META-INF/container.xml"), ("a.epub", "b.opf"), ("a.epub", "c.xhtml"),
])  # fmt: skip
def test_billion_laughs(tmp_path: Path, name: str, part: str) -> None:
    good = tmp_path / f"good{Path(name).suffix}"
    if name == "a.epub":
        epub(good)
    elif name == "a.docx":
        docx.Document().save(str(good))
    elif name == "a.pptx":
        pptx.Presentation().save(str(good))
    else:
        openpyxl.Workbook().save(good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / name, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member == part:
                start = data.index(b"<", data.index(b"?>") + 2 if b"?>" in data else 0)
                end = data.rindex(b"</")
                data = LAUGHS.encode() + data[start:end] + b"&i;" + data[end:]
            new.writestr(member, data)
    try:
        results = read(tmp_path / name)
    except Unreadable:
        return
    assert all(len(r.text) < 100_000 for r in results if isinstance(r, Document)), "nothing was expanded"


# --- EPUB ------------------------------------------------------------------------------------------


def epub(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="b.opf"/></rootfiles></container>',
        )
        book.writestr(
            "b.opf",
            '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf"><metadata '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Book</dc:title><dc:creator>A</dc:creator>'
            "<dc:creator>B</dc:creator><dc:language>en</dc:language><dc:date>1999</dc:date></metadata><manifest>"
            '<item id="two" href="two%20.xhtml"/><item id="one" href="c.xhtml"/><item id="gone" href="gone.xhtml"/>'
            '</manifest><spine><itemref idref="one"/><itemref idref="gone"/><itemref idref="two"/></spine></package>',
        )
        chapter = (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{}</h1><p>{}</p></body></html>'
        )
        book.writestr("c.xhtml", chapter.format("First", "one — text"))
        book.writestr("two .xhtml", chapter.format("Second", "two"))


def test_epub(tmp_path: Path) -> None:
    epub(tmp_path / "a.epub")
    document = one(tmp_path / "a.epub")
    assert document.text == "# First\n\none — text\n\n# Second\n\ntwo"
    assert document.metadata == {
        "source": "a.epub", "title": "The Book", "author": "A, B", "created": "1999", "language": "en",
    }  # fmt: skip
    assert places(document)["two"] == (None, "Second")


# --- JSON, Parquet -----------------------------------------------------------------------------------


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"id": 1, "text": "x", "n": 2}, {"name": "Tea", "tags": ["a", "b"], "deep": {"k": True}}])
    )
    assert read(path) == [
        Document("1", "x", {"source": "a.json", "n": 2}),
        Document("a.json#2", "name: Tea\ntags: a\ntags: b\ndeep.k: true", {"source": "a.json"}),
    ]
    assert one(path, '{"_id": "q", "content": "y"}') == Document("q", "y", {"source": "a.json"})
    assert one(path, '{"a": {"b": 1}, "c": null}') == Document("a.json", "a.b: 1", {"source": "a.json"})
    assert one(path, '["x", 2]').text == "x\n2"
    bad, good = read_text(path, '[{"text": 5, "id": "i"}, {"text": "z"}]')
    assert bad == Failure("i", "item 1: text is int, not a string")
    assert good == Document("a.json#2", "z", {"source": "a.json"})


def read_text(path: Path, content: str) -> list[Document | Failure]:
    path.write_text(content)
    return read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[NaN]", "NaN"),
        ("[" * 200_000, "nested"),
        ("{}", "no values"),
        ("[]", "no values"),
        ("", "empty"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path / "a.json")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = {
        "id": ["a", "b"],
        "text": ["one", None],
        "year": [1999, None],
        "when": [datetime(2024, 3, 5, 1, 2), None],
        "price": [Decimal("1.5"), None],
        "tags": [["x"], []],
        "vector": [[0.1, 0.2], [0.3, 0.4]],
        "blob": [b"\0", b""],
    }
    pq.write_table(pa.table(rows), path)
    good, bad = read(path)
    assert good == Document(
        "a", "one",
        {"source": "a.parquet", "year": 1999, "when": "2024-03-05T01:02:00+00:00", "price": 1.5, "tags": ["x"]},
    )  # fmt: skip
    assert bad == Failure("b", "row 2: no text")
    pq.write_table(pa.table({"body text": ["x"] * 1000, "n": range(1000)}), path)
    results = read(path)
    assert [(results[i].id, getattr(results[i], "text", "")) for i in (0, 999)] == [
        ("a.parquet#1", "x"),
        ("a.parquet#1000", "x"),
    ]
    pq.write_table(pa.table({"a": ["x", None, None], "n": [1, 2, 3], "b": ["y", "z", None]}), path)
    assert read(path) == [
        Document("a.parquet#1", "a: x\nb: y", {"source": "a.parquet", "a": "x", "n": 1, "b": "y"}),
        Document("a.parquet#2", "b: z", {"source": "a.parquet", "a": None, "n": 2, "b": "z"}),
        Failure("a.parquet#3", "row 3: no text"),
    ]
    pq.write_table(pa.table({"a": [1], "b": [2.0]}), path)
    with pytest.raises(Unreadable, match="has no column named text, content, body; it has a, b"):
        read(path)


# --- code, ZIP -------------------------------------------------------------------------------------


def test_code(tmp_path: Path) -> None:
    document = one(tmp_path / "a.RS", "fn main() {}\n")
    assert (document.text, document.metadata["language"]) == ("fn main() {}\n", "rust")
    assert one(tmp_path / "a.ts", "let x: number\n").metadata["content_type"] == "text/x-typescript"


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_zip(tmp_path: Path) -> None:
    inner = pack({"deep.txt": b"deep", "../../up.md": b"# Up"})
    path = tmp_path / "a.zip"
    path.write_bytes(
        pack({
            "b/one.md": b"# One\n", "b/rows.jsonl": b'{"id": "r", "text": "row"}\n', "inner.zip": inner,
            ".hidden.txt": b"x", "__MACOSX/one.md": b"x", "photo.png": b"x", "notes.xyz": b"as a folder has it",
            "bad.txt": b"\0", "bad.pdf": b"%PDF", "e.docx": b"", "bad.xyz": b"\0", "a.rs": b"fn main() {}",
        })
    )  # fmt: skip
    results = {result.id: result for result in read(path)}
    assert {name for name, result in results.items() if isinstance(result, Document)} == {
        "a.zip/b/one.md", "r", "a.zip/inner.zip/deep.txt", "a.zip/notes.xyz", "a.zip/a.rs",
    }  # fmt: skip
    assert {name for name, result in results.items() if isinstance(result, Failure)} == {
        "a.zip/bad.txt", "a.zip/bad.pdf", "a.zip/e.docx", "a.zip/bad.xyz",
    }  # fmt: skip
    assert {r.id: r.metadata["content_type"] for r in results.values() if isinstance(r, Document)} == {
        "a.zip/b/one.md": "text/markdown", "r": "application/x-ndjson", "a.zip/inner.zip/deep.txt": "text/plain",
        "a.zip/notes.xyz": "text/plain", "a.zip/a.rs": "text/x-rust",
    }  # fmt: skip
    assert results["a.zip/b/one.md"].metadata["source"] == "a.zip/b/one.md"  # type: ignore[union-attr]
    path.write_bytes(pack({"photo.png": b"x"}))
    with pytest.raises(Unreadable, match="no file that can be read"):
        read(path)


def test_zip_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    nested = b"text"
    for _ in range(5):
        nested = pack({"a.txt": b"fine", "n.zip": nested})
    path.write_bytes(nested)
    results = read(path)
    assert [type(result) for result in results] == [Document, Document, Document, Failure]
    assert "archive in 2 others" in getattr(results[-1], "reason", "")
    path.write_bytes(declaring(pack({"a.txt": b"x" * 100}), _extra.MAX_EXPANDED + 1))
    with pytest.raises(Unreadable, match="expands to more than 1024 MiB"):
        read(path)
    path.write_bytes(pack({f"{i}.txt": b"" for i in range(_extra.MAX_MEMBERS + 1)}))
    with pytest.raises(Unreadable, match="holds 20,001 files"):
        read(path)
    within_limits = pack({f"{i}.txt": b"0" * 10_000_000 for i in range(7)})  # 66 MiB in 68 KB
    path.write_bytes(pack({"inner.zip": within_limits, "good.txt": b"text"}))
    good, bomb = read(path)
    assert (good.id, bomb.id) == ("a.zip/good.txt", "a.zip/inner.zip")
    assert "over 100 times its size, 66 MiB" in getattr(bomb, "reason", "")
    path.write_bytes(pack({"a.txt": b"0" * 60_000_000}))
    assert isinstance(read(path)[0], Document), "what is small is not asked"


def declaring(archive: bytes, size: int) -> bytes:
    """The archive of one file, whose directory declares that the file is so large."""
    at = archive.index(b"PK\x01\x02") + 24
    return archive[:at] + struct.pack("<I", size) + archive[at + 4 :]


# --- the worker --------------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A reader of another package that does what the file says; its worker finds it as an entry point."""
    (tmp_path / "hostile_reader.py").write_text(
        '"""Test."""\nimport ctypes, os, sys\nfrom nearest.contract import Document, Failure, Reader\n'
        "class Hostile(Reader):\n"
        "    extensions = ('.hostile',)\n    isolated = True\n"
        "    def read(self, path, document_id):\n"
        "        yield Document(document_id, 'before', {})\n"
        "        exec(path.read_text())\n"
        "        yield Document(document_id, 'after', {})\n"
        "READER = Hostile\n"
    )
    info = tmp_path / "hostile-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nearest.readers]\nhostile = hostile_reader\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    _isolated._pool.close()  # workers without it
    import hostile_reader  # type: ignore[import-not-found]

    def run(code: str, **limits: Any) -> list[str]:
        (tmp_path / "a.hostile").write_text(code)
        reader = _isolated.Isolated("hostile", hostile_reader.READER, **limits)
        told: list[str] = []
        try:
            for result in reader.read(tmp_path / "a.hostile", "a"):
                told.append(result.text if isinstance(result, Document) else result.reason)
        except Unreadable as error:
            told.append(str(error))
        return told

    yield run
    _isolated._pool.close()


def test_a_parser_that_loops_crashes_or_grows_costs_its_file(hostile: Any) -> None:
    assert hostile("pass") == ["before", "after"]
    assert hostile("while True: pass", seconds=1.0) == [
        "before", "took over 1 s to read; it may be damaged, or made to keep a parser busy"
    ]  # fmt: skip
    assert hostile("pass") == ["before", "after"]
    assert hostile("ctypes.string_at(0)") == ["before", "the parser crashed (signal 11); the file may be damaged"]
    assert hostile("x = bytearray(4 << 30)") == ["before", "needs more than 3 GiB of memory to be read; split it"]
    assert hostile("os._exit(3)") == ["before", "the parser crashed (exit status 3); the file may be damaged"]
    assert hostile("raise KeyError('/Root')") == [
        "before", "is damaged, or not what its name says (KeyError: '/Root')"
    ]  # fmt: skip
    assert hostile("f = lambda: f()\nglobals()['f'] = f\nf()") == ["before", "is nested too deeply"]
    assert hostile("print('noise'); sys.stdout.flush(); os.write(1, b'noise')") == ["before", "after"]


def test_a_worker_is_kept_for_the_next_file_and_ends_when_it_is_not_read_to_the_end(
    hostile: Any, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    note = f"open({str(pid)!r}, 'a').write(f'{{os.getpid()}} ')"
    for _ in range(4):
        hostile(note)
    *others, first = pid.read_text().split()
    assert first in others, "a worker for every file"
    reader = readers.for_path(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    results = reader.read(tmp_path / "a.json", "a")
    next(results)
    results.close()  # type: ignore[attr-defined]
    hostile(note)
    assert pid.read_text().split()[4] != first, "its answers could not be told from those of the file before"


def test_a_worker_is_not_taken_for_as_large_as_the_process_that_started_it() -> None:
    code = (
        "import subprocess, sys; large = b'x' * (400 << 20); "
        "small = 'from nearest.readers import _worker; print(_worker._used())'; "
        "print(subprocess.check_output([sys.executable, '-c', small]).decode())"
    )
    assert 0 < int(subprocess.check_output([sys.executable, "-c", code])) < 300 << 20


def test_files_may_be_begun_ahead_and_read_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.json" for i in range(12)]
    for path in paths:
        path.write_text(f'["{path.stem}"]')
    begun = [readers.for_path(path).read(path, path.name) for path in paths]
    for i in (11, 0, 5, *range(1, 5), *range(6, 11)):
        assert [getattr(document, "text", "") for document in begun[i]] == [str(i)]


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pypdf.py").write_text("raise ImportError('no', name='pypdf')")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _isolated._pool.close()
    try:
        with pytest.raises(MissingDependency, match=r"needs pypdf.*pip install 'nearest\[readers\]'"):
            read(tmp_path / "a.pdf")
    finally:
        _isolated._pool.close()
