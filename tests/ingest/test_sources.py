"""Where documents come from beside plain folders: globs, ignore files, standard input, URLs, databases."""

from __future__ import annotations

import http.server
import io
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nearest
from nearest import app, errors
from nearest.app import Collection
from nearest.contract import Document, Failure
from nearest.ingest import Progress, web
from tests.fakes import HashEmbedder, LineChunker


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[Collection]:
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        yield kb


def ids(kb: Collection) -> set[str | None]:
    return {record.document_id for record in kb.scan()}


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# --- folders -----------------------------------------------------------------------------------------


def test_ignore_files(kb: Collection, tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs",
        _dot_gitignore="*.log\n/build/\n!keep.log\n",
        _dot_nearestignore="# ours\nsecret.md\n!wanted.log\n",
        a_dot_md="a", secret_dot_md="x", x_dot_log="x", keep_dot_log="k", wanted_dot_log="w",
        build__b_dot_md="x", sub__build__c_dot_md="c",
        sub___dot_gitignore="c2.md\n!x.log\n", sub__c2_dot_md="x", sub__x_dot_log="sub", other__c2_dot_md="o",
    )  # fmt: skip
    kb.add_files(docs)
    assert ids(kb) == {
        "docs/a.md", "docs/keep.log", "docs/wanted.log", "docs/sub/build/c.md", "docs/sub/x.log", "docs/other/c2.md",
    }  # fmt: skip
    report = kb.add_files(docs, ignore=False)
    assert (report.added, report.unchanged) == (4, 6)
    assert kb.add_files(docs).removed == 4, "what is ignored now is gone"


def test_globs(kb: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "docs", a_dot_md="a", b_dot_txt="b", deep__er__c_dot_md="c", deep__d_dot_md="d")
    monkeypatch.chdir(tmp_path)
    kb.add_files("docs/**/*.md")
    assert ids(kb) == {"docs/a.md", "docs/deep/er/c.md", "docs/deep/d.md"}
    (tmp_path / "docs" / "deep" / "d.md").unlink()
    report = kb.add_files("docs/**/*.md")
    assert (report.unchanged, report.removed) == (2, 1)
    assert kb.add_files([tmp_path / "docs" / "?.txt"]).added == 1
    for nothing in ("docs/*.pdf", "nowhere/*.md", "nothing.md"):
        with pytest.raises(errors.InvalidInput, match=r"matches no|does not exist"):
            kb.add_files(nothing)


def test_code_that_looks_like_a_video_is_read(kb: Collection, tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", a_dot_ts="let x = 1\n", b_dot_mp4="x")
    report = kb.add_files(docs)
    assert (ids(kb), report.skipped) == ({"docs/a.ts"}, 1)


def test_a_folder_is_walked_once_and_progress_knows_how_many_files_there_are(
    kb: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write(tmp_path / "one", a_dot_md="a", b_dot_md="b"), write(tmp_path / "two", c_dot_md="c")
    walked: list[str] = []
    walk = os.walk

    def counting(folder: Any, **options: Any) -> Any:
        walked.append(str(folder))
        return walk(folder, **options)

    monkeypatch.setattr(os, "walk", counting)
    told: list[Progress] = []
    found = app.find_files([one, two])
    kb.add_files(found, progress=told.append)
    assert walked == [str(one), str(two)]
    assert {at.files for at in told} == {3}
    assert (told[0].documents <= 2, told[-1].documents) == (True, 3)


def test_a_folder_that_cannot_be_looked_into_keeps_what_it_gave(
    kb: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", a_dot_md="a", deep__b_dot_md="b")
    kb.add_files(docs)
    (docs / "a.md").unlink()
    write(docs, c_dot_md="c")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing)
        report = kb.add_files(docs)
    assert report.failed == [Failure("docs/deep", "could not be read: Permission denied")]
    assert (report.added, report.removed) == (1, 0), "not a complete pass"
    assert kb.add_files(docs).removed == 1
    assert ids(kb) == {"docs/c.md", "docs/deep/b.md"}


def test_what_the_readers_know_reaches_the_hit(kb: Collection, tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", a_dot_md="# One\n## Two\nthe text\n")
    kb.add_files(docs)
    (hit,) = kb.search("the text\n", k=1, mode="dense")
    assert (hit.headings, hit.page, hit.metadata["content_type"]) == (["One", "Two"], None, "text/markdown")


def test_a_file_that_is_read_in_part_keeps_what_it_gave(kb: Collection, tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", rows_dot_jsonl='{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n')
    kb.add_files(docs)
    write(docs, rows_dot_jsonl='{"id": "a", "text": "new"}\n{"id": "b", "te\n')
    report = kb.add_files(docs)
    assert (report.updated, report.removed, len(report.failed)) == (1, 0, 1)
    assert ids(kb) == {"a", "b"}


# --- standard input ------------------------------------------------------------------------------------


def test_standard_input(kb: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))

    given(b"some text\n")
    assert kb.add_files("-").added == 1
    assert ids(kb) == {"stdin"}
    given(b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n')
    assert kb.add_files("-", name="rows.jsonl").added == 2
    given(b'{"id": "a", "text": "x"}\n')
    assert kb.add_files("-", name="rows.jsonl").removed == 1
    assert ids(kb) == {"stdin", "a"}
    given(b"\0\0")
    assert [failure.id for failure in kb.add_files("-").failed] == ["stdin"]


# --- web pages -----------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Any]:
    pages: dict[str, tuple[int, dict[str, str], bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Site:
        def __init__(self, url: str) -> None:
            self.url, self.pages, self.asked = url, pages, asked

    asked: list[tuple[str, dict[str, str]]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_page(kb: Collection, site: Any) -> None:
    pytest.importorskip("trafilatura", reason="needs the extra `readers`")
    html = b"<html><head><title>T</title></head><body><h1>Keys</h1><p>The text of the page.</p></body></html>"
    site.pages["/page"] = (200, {"Content-Type": "text/html; charset=utf-8"}, html)
    site.pages["/notes"] = (200, {"Content-Type": "text/markdown"}, b"# Notes\n")
    site.pages["/old"] = (301, {"Location": "/notes"}, b"")
    url = site.url + "/page"
    report = kb.add_files([url, site.url + "/old#part"], private=True)
    assert (report.added, report.failed) == (2, [])
    assert ids(kb) == {url, site.url + "/old"}
    assert any(hit.headings for hit in kb.search("x", k=10, mode="dense"))
    assert kb.add_files(url, private=True).unchanged == 1
    assert site.asked[0][1]["Host"] == site.url.removeprefix("http://")
    site.pages["/page"] = (500, {}, b"")
    report = kb.add_files(url, private=True)
    assert report.failed == [Failure(url, "the server said 500 Internal Server Error")]
    assert url in ids(kb), "what it gave before stays"


def test_what_a_url_may_not_do(kb: Collection, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/loop"] = (302, {"Location": "/loop"}, b"")
    site.pages["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    site.pages["/big"] = (200, {"Content-Type": "text/plain"}, b"x" * 2_000_000)
    monkeypatch.setattr(web, "MAX_BYTES", 1 << 20)
    for path, reason in {
        "/loop": "redirects more than 5 times",
        "/file": "is not the URL of a web page",
        "/big": "is over 1 MiB",
        "/none": "the server said 404",
    }.items():
        (failure,) = kb.add_files(site.url + path, private=True).failed
        assert reason in failure.reason
    site.asked.clear()
    (failure,) = kb.add_files(site.url + "/big").failed
    assert "an address of a private network" in failure.reason
    assert site.asked == [], "it was not even asked"


def test_a_redirect_to_a_private_address_is_refused(kb: Collection, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name whose server points inside: the first address is taken as public here, the second is not."""
    inside = site.url.replace("127.0.0.1", "localhost")
    site.pages["/"] = (302, {"Location": inside + "/secret"}, b"")
    site.pages["/secret"] = (200, {"Content-Type": "text/plain"}, b"secret")
    pinned = web._pinned
    monkeypatch.setattr(web, "_pinned", lambda url, private: pinned(url, private or url.host == "127.0.0.1"))
    (failure,) = kb.add_files(site.url + "/").failed
    assert "localhost is " in failure.reason
    assert [path for path, _ in site.asked] == ["/"]


def test_a_url_with_a_password_is_known_without_it(kb: Collection, site: Any) -> None:
    site.pages["/a.txt"] = (200, {}, b"text")
    kb.add_files(site.url.replace("//", "//me:secret@") + "/a.txt", private=True)
    assert ids(kb) == {site.url + "/a.txt"}
    assert site.asked[0][1]["Authorization"].startswith("Basic ")


# --- object stores -------------------------------------------------------------------------------------


def test_what_fsspec_reaches(kb: Collection) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra `readers`")
    there = fsspec.filesystem("memory")
    there.store.clear()
    for i in range(30):
        there.pipe(f"/bucket/docs/{i:02}.md", f"# {i}\n".encode())
    there.pipe("/bucket/docs/photo.png", b"x")
    there.pipe("/bucket/docs/.hidden/x.md", b"x")
    there.pipe("/bucket/bad.txt", b"\0")
    report = kb.add_files("memory://bucket")
    assert (report.added, report.skipped) == (30, 1)
    assert [failure.id for failure in report.failed] == ["memory:///bucket/bad.txt"]
    assert "memory:///bucket/docs/07.md" in ids(kb)
    there.rm("/bucket/docs/07.md")
    report = kb.add_files("memory://bucket")
    assert (report.unchanged, report.removed) == (29, 1)
    with nearest.open("memory:", embedder=HashEmbedder(), chunker=LineChunker()) as other:
        assert other.add_files("memory://bucket/docs/1*.md").added == 10
        assert other.add_files("memory://bucket/docs/20.md").added == 1
    for nothing in ("memory://bucket/none", "memory://bucket/*.pdf"):
        with pytest.raises(errors.InvalidInput, match=r"does not exist|matches no file"):
            kb.add_files(nothing)
    there.store.clear()
    with pytest.raises(errors.InvalidInput):
        kb.add_files("memory://bucket")
    assert len(ids(kb)) == 29


@pytest.mark.parametrize(("url", "client"), [("S3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("az://b/x", "adlfs")])
def test_a_client_that_is_missing_is_named(
    kb: Collection, monkeypatch: pytest.MonkeyPatch, url: str, client: str
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra `readers`")
    monkeypatch.setitem(sys.modules, client, None)  # as if it were not installed
    with pytest.raises(errors.MissingDependency, match=rf"needs {client}, .* run: pip install {client}$"):
        kb.add_files(url)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(errors.MissingDependency, match=rf"run: pip install 'nearest\[readers\]' {client}$"):
        kb.add_files(url)


def test_a_scheme_in_capitals_and_one_that_is_unknown(kb: Collection) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra `readers`")
    there = fsspec.filesystem("memory")
    there.store.clear()
    there.pipe("/bucket/a.md", b"# A\n")
    assert kb.add_files("memory://bucket").added == 1
    assert kb.add_files("MEMORY://bucket").unchanged == 1, "the same origin, the same ids"
    with pytest.raises(errors.InvalidInput, match="nonsense"):
        kb.add_files("nonsense://bucket/docs")


# --- databases -----------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
    database.execute("CREATE TABLE notes (id INTEGER, title TEXT, body TEXT, stars REAL, at TEXT)")
    rows = [(1, "One", "first", 1.5, "2024-01-01"), (2, "Two", "second", None, "2024-01-02"), (3, "", "third", 3, None)]
    database.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)
    return database


def test_sql_rows(kb: Collection, tmp_path: Path, database: sqlite3.Connection) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    report = kb.add_sql(url, "SELECT * FROM notes;", text="title,body")
    assert (report.added, report.failed) == (3, [])
    assert kb.get("1") == Document(
        "1", "One\n\nfirst", {"source": f"sql:{url}", "title": "One", "body": "first", "stars": 1.5, "at": "2024-01-01"}
    )
    database.execute("DELETE FROM notes WHERE id = 1")
    database.execute("UPDATE notes SET body = 'changed' WHERE id = 2")
    database.execute("INSERT INTO notes VALUES (4, NULL, ' ', 0, NULL), (NULL, 'x', 'x', 0, NULL)")
    report = kb.add_sql(url, "SELECT * FROM notes", text="title,body")
    assert (report.updated, report.unchanged, report.removed) == (1, 1, 1)
    assert [failure.reason for failure in report.failed] == ["row 3: no text", "row 4: has no id"]
    database.execute("DELETE FROM notes")
    with pytest.raises(errors.InvalidInput, match="gives no rows now, but 2 documents"):
        kb.add_sql(url, "SELECT * FROM notes", text="title,body")
    assert kb.count() == 2


def test_sql_by_a_cursor(kb: Collection, tmp_path: Path, database: sqlite3.Connection) -> None:
    spec = f"sql:sqlite:///{tmp_path / 'rows.db'}?query=SELECT id, body AS text, at FROM notes&cursor=at"
    assert kb.add_files(spec).added == 3
    database.execute("DELETE FROM notes WHERE id = 1")
    database.execute("INSERT INTO notes VALUES (5, '', 'equal', 0, '2024-01-02'), (6, '', 'old', 0, '2023-01-01')")
    report = kb.add_files(spec)
    assert (report.added, report.unchanged, report.removed) == (1, 2, 0), "the highest value's rows, and those without"
    report = kb.add_files(spec, full=True)
    assert (report.added, report.removed) == (1, 1)
    assert ids(kb) == {"2", "3", "5", "6"}
    database.execute("INSERT INTO notes VALUES (7, '', '', 0, '2024-02-01')")
    assert len(kb.add_files(spec).failed) == 1
    database.execute("UPDATE notes SET body = 'mended' WHERE id = 7")
    assert kb.add_files(spec).added == 1, "what failed is asked for again"


@pytest.mark.parametrize("kind", ["INTEGER", "TEXT"])
def test_a_row_that_fails_does_not_hold_the_cursor(kb: Collection, tmp_path: Path, kind: str) -> None:
    with sqlite3.connect(tmp_path / "more.db", isolation_level=None) as database:
        database.execute(f"CREATE TABLE rows (id {kind}, text TEXT, at INTEGER)")
        every = [*((i, f"row {i}", i) for i in range(20)), (20, "", 5), (None, "no id", 6), ("", "", 7)]
        database.executemany("INSERT INTO rows VALUES (?, ?, ?)", every)
        spec = f"sql:sqlite:///{tmp_path / 'more.db'}?query=SELECT * FROM rows&cursor=at"
        report = kb.add_files(spec)
        assert (report.added, len(report.failed)) == (20, 3)
        for _ in range(2):
            report = kb.add_files(spec)
            assert (report.unchanged, len(report.failed)) == (1, 3), "not all rows again"
            assert len(kb.info()["failed"]) == 3
        database.execute("UPDATE rows SET text = 'mended' WHERE id = 20")
        database.execute("UPDATE rows SET id = 21 WHERE id IS NULL")
        database.execute("INSERT INTO rows VALUES (22, 'new', 30)")
        report = kb.add_files(spec)
        assert (report.added, report.unchanged) == (2, 1)
        assert kb.get("22") is not None


def test_rows_whose_failures_cannot_be_named_are_read_again(kb: Collection, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "more.db", isolation_level=None) as database:
        database.execute("CREATE TABLE rows (id INTEGER, text TEXT, at INTEGER)")
        database.executemany("INSERT INTO rows VALUES (?, '', ?)", [(i, i) for i in range(501)])
        database.execute("INSERT INTO rows VALUES (1000, 'fine', 1000)")
        spec = f"sql:sqlite:///{tmp_path / 'more.db'}?query=SELECT * FROM rows&cursor=at"
        assert len(kb.add_files(spec).failed) == len(kb.add_files(spec).failed) == 501
        database.execute("UPDATE rows SET text = 'mended'")
        assert kb.add_files(spec).added == 501


def test_bad_sql(kb: Collection, tmp_path: Path, database: sqlite3.Connection) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    for query, options, reason in (
        ("SELECT * FROM absent", {}, "no such table"),
        ("SELECT id FROM notes", {}, "no column 'text'; it gives id"),
        ("SELECT id, body AS text FROM notes", {"cursor": "at"}, "at"),
    ):
        with pytest.raises(errors.InvalidInput, match=reason):
            kb.add_sql(url, query, **options)  # type: ignore[arg-type]
    for spec, reason in (
        (f"sql:{url}", "has no query"),
        ("sql:no url", "cannot be read"),
        ("sql:strange://host/db?query=SELECT 1", "knows no database"),
    ):
        with pytest.raises(errors.InvalidInput, match=reason):
            kb.add_files(spec)
    assert kb.count() == 0


def test_two_queries_may_not_take_each_others_ids(kb: Collection, tmp_path: Path, database: sqlite3.Connection) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    kb.add_sql(url, "SELECT id, body AS text FROM notes")
    report = kb.add_sql(url, "SELECT id, title AS text FROM notes WHERE id = 1")
    assert ["the id is taken" in failure.reason for failure in report.failed] == [True]
