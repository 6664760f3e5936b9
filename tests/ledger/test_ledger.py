"""The ledger's steps, its migrations, and what it says of a file that is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import nearest.ledger
from nearest import errors
from nearest.ledger import Change, Ledger, glance, models
from nearest.ledger.glance import HEAD

MIGRATIONS = str(Path(nearest.ledger.__file__).parent / "migrations")


@pytest.fixture
def config() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    return config


def test_migrations_lead_to_the_tables_of_the_models(tmp_path: Path, config: Config) -> None:
    with sa.create_engine(f"sqlite:///{tmp_path / 'migrated.db'}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(connection), models.metadata) == []
        assert connection.scalar(sa.text("select version_num from alembic_version")) == HEAD


def test_head_is_the_newest_migration(config: Config) -> None:
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_an_older_ledger_is_migrated_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        # The state before the first migration: Alembic's own table alone.
        connection.execute(sa.text("create table alembic_version (version_num varchar(32) primary key)"))
        connection.execute(sa.text("insert into alembic_version values ('')"))
        connection.execute(sa.text("delete from alembic_version"))
        connection.execute(sa.text("insert into alembic_version values ('0000')"))
    with pytest.raises(Exception, match="0000"):
        # There is no 0000: what matters is that Alembic was asked to go on from it.
        Ledger.open(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("create table t (x)", "not a ledger"),
        (
            "create table alembic_version (version_num varchar(32)); insert into alembic_version values ('9999')",
            "newer",
        ),
    ],
)
def test_a_database_that_is_no_ledger_is_refused(tmp_path: Path, make: str, says: str) -> None:
    path = tmp_path / "ledger.db"
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        for statement in make.split(";"):
            connection.execute(sa.text(statement))
    with pytest.raises(errors.CollectionDamaged, match=says):
        Ledger.open(path)


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(errors.CollectionDamaged, match="damaged"):
        Ledger.open(path)


def test_the_four_steps_show_and_hide_records() -> None:
    ledger = Ledger.open(None)
    first = Change("a", "h1", ("r1", "r2"))
    ledger.intend([first])
    assert ledger.visibility.hidden == {"r1", "r2"}
    assert ledger.lookup(["a"]) == {}
    epoch = ledger.visibility.epoch
    ledger.commit([first], run=1)
    assert ledger.visibility.hidden == frozenset()
    assert ledger.visibility.epoch != epoch
    assert ledger.record_ids(["a"]) == {"a": ["r1", "r2"]}

    second = Change("a", "h2", ("r2", "r3"))
    (intent,) = ledger.intend([second])
    assert (set(intent.new), set(intent.old)) == ({"r3"}, {"r1"}), "a record of both versions is neither"
    assert ledger.visibility.hidden == {"r3"}
    ledger.commit([second], run=2)
    assert ledger.visibility.hidden == {"r1"}
    assert [i.committed for i in ledger.pending()] == [True]
    ledger.settle()
    assert (ledger.visibility.hidden, ledger.pending()) == (frozenset(), [])
    assert (ledger.count(), ledger.count_chunks()) == (1, 2)

    gone = Change("a")
    ledger.intend([gone])
    ledger.commit([gone], run=3)
    assert ledger.visibility.hidden == {"r2", "r3"}
    assert (ledger.count(), ledger.record_ids(["a"])) == (0, {})


def test_a_version_names_one_state_of_one_ledger(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db")

    def version() -> int | None:
        return ledger.visibility.version

    assert version() is None, "every new ledger is alike"
    first, second = Change("a", "h1", ("r1",)), Change("a", "h2", ("r2",))
    ledger.intend([first])
    assert version() is None
    ledger.commit([first], 1)
    before = version()
    assert before is not None, "nothing is left to be hidden"
    ledger.intend([second])
    ledger.undo()
    undone = version()
    assert undone not in (None, before), "the store held other records meanwhile"
    ledger.close()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "copy.db")
    ends: set[int | None] = set()
    for name in ("ledger", "copy"):
        again = Ledger.open(tmp_path / f"{name}.db")
        assert again.visibility.version == undone
        again.intend([second])
        again.commit([second], 2)
        again.settle()
        ends.add(again.visibility.version)
        again.close()
    assert len(ends - {None, undone}) == 2


def test_epochs_that_were_counted_are_no_versions(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.set({"epoch": 5})
    ledger.close()
    again = Ledger.open(tmp_path / "ledger.db")
    assert (again.visibility.epoch, again.visibility.version) == (5, None)
    again.close()


def test_a_glance_is_enough_only_where_nothing_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert glance(tmp_path / "none.db") is None
    ledger = Ledger.open(path)
    ledger.set({"embedder": "m", "n": {"deep": [1, None]}, "number": "5"})
    ledger.next_run()
    assert glance(path) == ledger.settings() == {"embedder": "m", "n": {"deep": [1, None]}, "number": "5", "run": 1}
    change = Change("a", "h", ("r",))
    ledger.intend([change])
    assert glance(path) is None
    ledger.commit([change], 1)
    assert glance(path) is None
    ledger.settle()
    assert glance(path) is not None
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '0000'"))
    assert glance(path) is None


def test_what_a_run_did_not_see_is_told_by_origin() -> None:
    ledger = Ledger.open(None)
    changes = [Change(i, "h", (f"r{i}",), origin, i) for i, origin in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None))]
    ledger.intend(changes)
    run = ledger.next_run()
    ledger.commit(changes, run)
    later = ledger.next_run()
    assert later > run
    ledger.saw(["a"], later)
    assert ledger.unseen("x", later) == ["b"]
    ledger.saw_source("x", "b", later)
    assert ledger.unseen("x", later) == []
    assert ledger.unseen("y", later) == ["c"]
    assert (ledger.has_origin("x"), ledger.has_origin("nowhere")) == (2, 0)


def test_failures_are_kept_until_the_document_succeeds() -> None:
    ledger = Ledger.open(None)
    ledger.failed("x", {"a": "why", "b": "why not"})
    ledger.failed("x", {"a": "another reason"})
    assert ledger.failures() == {"a": "another reason", "b": "why not"}
    change = Change("a", "h", ("r",))
    ledger.intend([change])
    ledger.commit([change], 1)
    assert ledger.failures() == {"b": "why not"}
    ledger.clear_failures("x")
    assert ledger.failures() == {}


def test_more_ids_than_one_statement_holds() -> None:
    ledger = Ledger.open(None)
    changes = [Change(f"d{i}", "h", (f"r{i}",)) for i in range(1203)]
    ledger.intend(changes)
    ledger.commit(changes, 1)
    assert len(ledger.lookup([c.document_id for c in changes])) == 1203
    assert len(ledger.record_ids([c.document_id for c in changes])) == 1203
