"""A ledger that several processes use: one writes, the others see what it makes visible, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nearest import errors
from nearest.ledger import Change, Ledger, Visibility, watch
from tests.stores.postgres import Postgres, postgres  # noqa: F401 -- a fixture

Open = Callable[[], Ledger]


@pytest.fixture(params=["file", "postgresql"])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same ledger, as another process would."""
    opened: list[Ledger] = []
    if request.param == "file":

        def open_one() -> Ledger:
            return Ledger.open(tmp_path / "ledger.db", shared=True)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.url(server.database())

        def open_one() -> Ledger:
            return Ledger.connect(url, "nearest_test")

    def one() -> Ledger:
        opened.append(open_one())
        return opened[-1]

    yield one
    for ledger in opened:
        ledger.close()


def hidden(ledger: Ledger) -> frozenset[str]:
    ledger.visibility.refresh()
    return ledger.visibility.hidden


def epoch(ledger: Ledger) -> int:
    ledger.visibility.refresh()
    return ledger.visibility.epoch


def test_a_reader_sees_each_step_of_a_writer(again: Open) -> None:
    writer, reader = again(), again()
    first = [Change("a", "h1", ("r1", "r2"))]
    writer.intend(first)
    assert hidden(reader) == {"r1", "r2"}
    before = epoch(reader)
    writer.commit(first, 1)
    assert hidden(reader) == frozenset()
    first_epoch = epoch(reader)
    assert first_epoch != before
    assert reader.record_ids(["a"]) == {"a": ["r1", "r2"]}
    second = [Change("a", "h2", ("r2", "r3"))]
    writer.intend(second)
    assert hidden(reader) == {"r3"}
    writer.commit(second, 2)
    assert hidden(reader) == {"r1"}
    writer.settle()
    assert hidden(reader) == frozenset()
    assert epoch(reader) not in (before, first_epoch)


def test_a_newcomer_hides_what_is_under_way(again: Open) -> None:
    again().intend([Change("a", "h", ("r",))])
    assert again().visibility.hidden == {"r"}


def test_a_whole_change_between_two_looks_is_noticed(again: Open) -> None:
    writer, reader = again(), again()
    before = epoch(reader)
    changes = [Change("a", "h", ("r",))]
    writer.intend(changes)
    writer.commit(changes, 1)
    writer.settle()
    assert hidden(reader) == frozenset()
    assert epoch(reader) != before


def test_one_writes_at_a_time(again: Open) -> None:
    one, other = again(), again()
    with one.writing():
        with pytest.raises(errors.CollectionLocked, match="another process is writing"), other.writing():
            pass
        again()  # opening does not wait for the writer
    with other.writing():
        pass


def test_a_glance_at_a_file_watches_it_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    seen = Visibility(watch=watch(path))
    seen.refresh()  # there is none yet
    ledger = Ledger.open(path, shared=True)
    ledger.intend([Change("a", "h", ("r",))])
    seen.refresh()
    assert seen.hidden == {"r"}
    assert seen.watch is not None
    assert seen.watch() is None  # nothing since
    ledger.close()


def test_databases_keep_ledgers_apart_by_namespace(postgres: Postgres) -> None:  # noqa: F811
    url = postgres.url(postgres.database())
    one, other = Ledger.connect(url, "nearest_one"), Ledger.connect(url, "nearest_other")
    one.set({"embedder": "a"})
    assert other.settings() == {}
    one.close()
    other.close()


def test_a_user_without_the_right_to_make_a_ledger_opens_one(postgres: Postgres) -> None:  # noqa: F811
    database = postgres.database()
    with contextlib.closing(Ledger.connect(postgres.url(database), "nearest_read")) as ledger:
        ledger.set({"embedder": "a"})
    user = f"reader_{database}"
    grants = (
        f"GRANT USAGE ON SCHEMA nearest_read TO {user}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA nearest_read TO {user}",
    )
    postgres.run(f"CREATE ROLE {user} LOGIN", *grants, database=database)
    url = postgres.url(database, user=user)
    with contextlib.closing(Ledger.connect(url, "nearest_read")) as ledger:
        assert ledger.settings() == {"embedder": "a"}
        with pytest.raises(errors.AccessDenied, match="permission denied"):
            ledger.set({"embedder": "b"})
    with pytest.raises(errors.AccessDenied):
        Ledger.connect(url, "nearest_new")
    assert Ledger.namespaces(url, ["nearest_read", "nearest_new"]) == {"nearest_read"}


def test_a_password_is_in_no_message() -> None:
    for url in ("postgresql://nobody:secret@127.0.0.1:1/db", "postgresql://nobody@127.0.0.1:1/db?password=secret"):
        with pytest.raises(errors.ConnectionFailed) as told:
            Ledger.connect(url, "nearest_x")
        assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("mysql://host/db", errors.InvalidInput, "PostgreSQL"),
        ("postgresql://nobody@127.0.0.1:1/db", errors.ConnectionFailed, "did not answer"),
    ],
)
def test_bad_databases(url: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Ledger.connect(url, "nearest_x")
