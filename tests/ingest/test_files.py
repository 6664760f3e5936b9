"""Files and folders: ids, changes, removals, failures."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nearest
from nearest import cli, embedders, errors
from nearest.app import Collection
from nearest.contract import Usage
from nearest.ingest import files
from tests.fakes import HashEmbedder, LineChunker


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[Collection]:
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        yield kb


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.md").write_text("# One\n\nfirst\n")
    (folder / "deep" / "two.txt").write_text("second\n")
    (folder / "deep" / "three.jsonl").write_text('{"_id": "j1", "text": "third"}\n{"_id": "j2", "text": "fourth"}\n')
    (folder / ".hidden.txt").write_text("not for you\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    return folder


def ids(kb: Collection) -> set[str | None]:
    return {record.document_id for record in kb.scan()}


def test_a_folder_is_read_and_read_again(kb: Collection, docs: Path) -> None:
    report = kb.add_files(docs)
    assert (report.added, report.skipped, report.failed) == (4, 1, [])
    assert ids(kb) == {"docs/one.md", "docs/deep/two.txt", "j1", "j2"}
    document = kb.get("docs/one.md")
    assert document is not None
    assert (document.text, document.metadata["source"], document.metadata["title"]) == (
        "# One\n\nfirst\n", "docs/one.md", "One",
    )  # fmt: skip
    again = kb.add_files(str(docs))
    assert (again.added, again.updated, again.unchanged, again.removed) == (0, 0, 4, 0)


def test_changes_and_removals_follow_the_folder(kb: Collection, docs: Path) -> None:
    kb.add_files(docs)
    kb.add([nearest.Document("mine", "not from the folder\n")])
    (docs / "one.md").write_text("# One\n\nchanged\n")
    (docs / "deep" / "two.txt").unlink()
    (docs / "deep" / "three.jsonl").write_text('{"_id": "j2", "text": "fourth"}\n')
    report = kb.add_files(docs)
    assert (report.added, report.updated, report.unchanged, report.removed) == (0, 1, 1, 2)
    assert ids(kb) == {"docs/one.md", "j2", "mine"}


def test_a_file_that_cannot_be_read_is_reported_and_keeps_what_it_gave(kb: Collection, docs: Path) -> None:
    kb.add_files(docs)
    (docs / "deep" / "two.txt").write_bytes(b"\0\1\2\3" * 100)
    (docs / "deep" / "three.jsonl").write_text('{"_id": "j1", "text": "third"}\n{"_id": "j2", broken\n')
    (docs / "blob.bin").write_bytes(bytes(range(256)) * 4)
    report = kb.add_files(docs)
    failed = {failure.id: failure.reason for failure in report.failed}
    assert {"docs/deep/two.txt", "docs/blob.bin"} <= failed.keys()
    assert len(failed) == 3
    assert "binary" in failed["docs/deep/two.txt"]
    assert "docs/deep/two.txt" in ids(kb), "what could be read before stays"
    assert kb.info()["failed"].keys() == failed.keys()
    (docs / "deep" / "two.txt").write_text("readable again\n")
    (docs / "deep" / "three.jsonl").write_text('{"_id": "j1", "text": "third"}\n{"_id": "j2", "text": "fourth"}\n')
    (docs / "blob.bin").unlink()
    mended = kb.add_files(docs)
    assert (mended.updated, mended.failed) == (1, [])
    assert kb.info()["failed"] == {}


def test_an_id_that_two_files_give_is_a_failure_of_the_second(kb: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "csvs"
    folder.mkdir()
    (folder / "orders.csv").write_text("id,text\n1,order one\n2,order two\n")
    (folder / "users.csv").write_text("id,text\n1,user one\n2,user two\n3,user three\n4,user four\n")
    (folder / "rows.jsonl").write_text('{"id": "3", "text": "row three"}\n{"text": "no id"}\n')
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("x.csv", "id,text\n1,x one\n9,x nine\n")
        archive.writestr("y.csv", "id,text\n9,y nine\n")
    report = kb.add_files(folder)
    assert (report.added, report.updated) == (6, 0)
    for again in (report, kb.add_files(folder)):
        reasons = {failure.id: failure.reason.partition(";")[0] for failure in again.failed}
        assert reasons == {
            "csvs/more.zip/y.csv#9": 'the id "9" is also in csvs/more.zip/x.csv',
            "csvs/orders.csv#1": 'the id "1" is also in csvs/more.zip',
            "csvs/users.csv#1": 'the id "1" is also in csvs/more.zip',
            "csvs/users.csv#2": 'the id "2" is also in csvs/orders.csv',
            "csvs/users.csv#3": 'the id "3" is also in csvs/rows.jsonl',
        }
        assert kb.info()["failed"].keys() == reasons.keys()
    assert (again.added, again.updated, again.unchanged, again.removed) == (0, 0, 6, 0), "it is settled"
    (folder / "users.csv").write_text("id,text\n1,user one\n")
    assert kb.add_files(folder).removed == 1, "a file with such a row has been seen"
    (folder / "users.csv").write_text("user_id,text\n1,user one\n")
    (folder / "orders.csv").write_text("order_id,text\n1,order one\n2,order two\n")
    (folder / "more.zip").unlink()
    mended = kb.add_files(folder)
    assert mended.failed == [], "what the reason tells to do is right"
    assert ids(kb) == {
        "csvs/orders.csv#2", "csvs/orders.csv#3", "csvs/users.csv#2", "3", "csvs/rows.jsonl#2",
    }  # fmt: skip


def test_one_file_is_an_origin_of_its_own(kb: Collection, docs: Path) -> None:
    file = docs / "deep" / "three.jsonl"
    assert kb.add_files(file).added == 2
    file.write_text('{"_id": "j3", "text": "fifth"}\n')
    report = kb.add_files([file])
    assert (report.added, report.removed) == (1, 2)


def test_what_does_not_exist_or_became_empty_is_refused(kb: Collection, docs: Path) -> None:
    with pytest.raises(errors.InvalidInput, match="does not exist"):
        kb.add_files([docs, docs / "nowhere"])
    assert kb.count() == 0
    with pytest.raises(errors.InvalidInput, match="no paths"):
        kb.add_files([])
    kb.add_files(docs / "deep")
    for file in (docs / "deep").iterdir():
        file.unlink()
    with pytest.raises(errors.InvalidInput, match="empty now, but 3 documents"):
        kb.add_files(docs / "deep")
    assert kb.count() == 3


def test_an_id_taken_by_another_folder_is_a_failure_until_that_is_gone(
    kb: Collection, docs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "docs"
    other.mkdir(parents=True)
    (other / "one.md").write_text("the other one\n")
    kb.add_files(docs)
    report = kb.add_files(other)
    assert [failure.id for failure in report.failed] == ["docs/one.md"]
    assert str(docs) in report.failed[0].reason
    assert kb.get("docs/one.md") is not None
    moved = tmp_path / "moved"
    docs.rename(moved)
    assert kb.add_files(other).updated == 1


def test_when_a_file_changed_is_known_and_embeds_nothing_again(kb: Collection, docs: Path) -> None:
    file = docs / "one.md"
    os.utime(file, (1_700_000_000, 1_700_000_000))
    kb.add_files(file)
    since = {"_chunk.facts.modified": {"$gte": "2023-11-14T22:13:20Z"}}
    after = {"_chunk.facts.modified": {"$gt": "2023-11-14T22:13:20Z"}}
    assert {r.payload["facts"]["modified"] for r in kb.scan(since)} == {"2023-11-14T22:13:20Z"}
    os.utime(file, (1_800_000_000, 1_800_000_000))
    assert kb.add_files(file).unchanged == 1, "touched, not changed"
    assert list(kb.scan(after)) == []
    file.write_text("# One\n\nchanged\n")
    kb.add_files(file)
    assert list(kb.scan(after)) != []


def test_files_of_one_command_with_one_name_are_told_apart(kb: Collection, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "docs").mkdir(parents=True)
        (tmp_path / name / "README.md").write_text(f"read me of {name}\n")
        (tmp_path / name / "docs" / "x.md").write_text(f"x of {name}\n")
    readmes = [tmp_path / name / "README.md" for name in ("a", "b", "c")]
    folders = [tmp_path / name / "docs" for name in ("a", "b")]
    plan = kb.plan_files([*readmes, *folders])
    assert (plan.documents, plan.failed) == (5, [])
    report = kb.add_files([*readmes, *folders])
    assert (report.added, report.failed) == (5, [])
    every = {"README.md", "b/README.md", "c/README.md", "docs/x.md", "b/docs/x.md"}
    assert ids(kb) == every
    for again in ([*readmes, *folders], readmes[::-1], readmes[1:2], folders[1:], folders[::-1]):
        report = kb.add_files(again)
        assert (report.unchanged, report.removed, report.failed) == (len(again), 0, [])
    assert ids(kb) == every
    readmes[1].write_text("changed\n")
    assert kb.add_files(readmes[1]).updated == 1


def test_what_has_an_id_keeps_it_when_another_is_named_before_it(kb: Collection, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"read me of {name}\n")
    one, other = tmp_path / "a" / "README.md", tmp_path / "b" / "README.md"
    kb.add_files(other)
    refused = kb.add_files(one)
    assert "name both in one command" in refused.failed[0].reason
    report = kb.add_files([one, other])
    assert (report.added, report.unchanged, report.failed) == (1, 1, [])
    assert ids(kb) == {"README.md", "a/README.md"}
    # The same file by two paths has one id, and the second way to it gives nothing new.
    report = kb.add_files([one, str(tmp_path / "a" / "*.md")])
    assert (report.added, ids(kb)) == (0, {"README.md", "a/README.md"})


def test_collections_and_hidden_files_are_not_documents(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a note\n")
    with nearest.open(tmp_path / "kb", embedder=HashEmbedder(), chunker=LineChunker()) as kb:
        report = kb.add_files(tmp_path)
    assert (report.added, report.skipped, report.failed) == (1, 0, [])


def test_a_file_that_cannot_be_read_is_bad_input_to_chunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No collection is part of it, so its exit code is not that of one which cannot be used."""
    monkeypatch.setattr(embedders, "load", lambda spec: HashEmbedder())
    (tmp_path / "blob.txt").write_bytes(bytes(range(256)))
    assert cli.main(["chunk", str(tmp_path / "blob.txt")]) == cli.USAGE
    assert "binary" in capsys.readouterr().err


def test_a_file_of_bad_rows_tells_of_some_and_counts_the_others(
    kb: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CSV whose quote is never closed can be millions of them; what they were before stays all the same."""
    monkeypatch.setattr(files, "MAX_FAILURES", 3)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.jsonl").write_text("".join(f'{{"id": "r{i}", "text": "row {i}"}}\n' for i in range(20)))
    (docs / "b.jsonl").write_text('{"id": "moved", "text": "of another file"}\n')
    assert kb.add_files(docs).added == 21
    (docs / "b.jsonl").write_text('{"id": "new", "text": "in its place"}\n')
    rows = [*(f'{{"id": "r{i}", "text": 1}}\n' for i in range(20)), '{"id": "moved", "text": 1}\n']
    (docs / "a.jsonl").write_text("".join([*rows, '{"id": "good", "text": "a good row"}\n']))
    assert [failure.id for failure in kb.plan_files(docs).failed] == ["r0", "r1", "r2", "docs/a.jsonl"]
    report = kb.add_files(docs)
    assert [failure.id for failure in report.failed] == ["r0", "r1", "r2", "docs/a.jsonl"]
    assert "18 more of its rows failed" in report.failed[-1].reason
    assert (report.added, report.removed, kb.count()) == (2, 0, 23)


def test_a_plan_foretells_what_is_over_the_models_limit(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "long.txt").write_text("many words of a long line " * 10 + "\nshort\n")
    (docs / "short.txt").write_text("short\n")
    (docs / "title.jsonl").write_text('{"id": "t", "text": "short", "about": "' + "many words " * 20 + '"}\n')
    model = HashEmbedder(max_words=30)
    with nearest.open(tmp_path / "kb", embedder=model, chunker=LineChunker(), vectors={"about": "about"}) as kb:
        plan = kb.plan_files(docs)
        assert [failure.id for failure in plan.failed] == ["docs/long.txt", "t"]
        assert "60 tokens, and fake:hash takes 30" in plan.failed[0].reason
        assert (plan.documents, plan.chunks) == (1, 1)
        assert (kb.plan_files(docs, truncate=True).failed, kb.plan_files(docs, pool=True).failed) == ([], [])
        report = kb.add_files(docs)
        assert [failure.id for failure in report.failed] == [failure.id for failure in plan.failed]
        assert (report.added, report.chunks) == (plan.documents, plan.chunks)


def test_a_plan_is_refused_what_the_run_is_and_forgets_the_time_of_a_tiny_run(kb: Collection, docs: Path) -> None:
    with pytest.raises(errors.InvalidInput, match="either truncated or pooled"):
        kb.plan_files(docs, truncate=True, pool=True)
    kb.ledger.used(1, kb.embedder.name, Usage(texts=1, tokens=5), 5_000.0)  # five tokens, and the model to load
    seconds = kb.plan_files(docs).seconds
    assert seconds is not None
    assert seconds < 1_000
    assert kb.plan_files(docs / "photo.png").seconds == 0, "nothing is to be embedded"
    kb.ledger.used(2, kb.embedder.name, Usage(texts=1, tokens=9_995), 5_000.0)
    plan = kb.plan_files(docs)
    assert plan.seconds == plan.usage.tokens, "a second a token, as the runs had it"
