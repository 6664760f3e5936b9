"""The PostgreSQL store: the conformance suite, and what is its own."""

from __future__ import annotations

import itertools
import json
import random
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nearest
from nearest import filters, stores
from nearest.contract import (
    MAX_K,
    Dense,
    Fused,
    IndexParams,
    Query,
    Record,
    Schema,
    SparseVector,
    Store,
    StoreURL,
    Text,
    VectorSpec,
)
from nearest.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NotACollection,
    SchemaMismatch,
    TimedOut,
    UnsupportedError,
)
from nearest.stores import pgvector
from nearest.stores.memory import MemoryStore
from nearest.testing import StoreSuite
from nearest.testing.base import check_ranking, true_scores, vector
from tests.stores.by_url import ByURL
from tests.stores.postgres import Postgres, postgres

__all__ = ["postgres"]
_numbers = itertools.count()


class TestPgvector(ByURL, StoreSuite):
    module = pgvector

    @pytest.fixture
    def new_url(self, postgres: Postgres) -> Callable[[Schema], str]:
        return lambda _: postgres.url(table=f"suite{next(_numbers)}")


SCHEMA = Schema(vectors={"dense": VectorSpec(4)})


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.url(table=f"own{next(_numbers)}")


# --- indexes ---


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ("", Schema({"dense": VectorSpec(32)})),
        ("", Schema({"dense": VectorSpec(32, "l2")}, index=IndexParams(m=12, ef_construct=100, ef=64))),
        ("", Schema({"dense": VectorSpec(256)}, index=IndexParams(quantization="binary", oversampling=50))),
        ("&type=halfvec", Schema({"dense": VectorSpec(32, "dot")})),
        ("&index=ivfflat&lists=16&probes=8", Schema({"dense": VectorSpec(32)})),
        ("&index=none", Schema({"dense": VectorSpec(32)})),
    ],
    ids=["hnsw", "hnsw-l2", "binary", "halfvec", "ivfflat", "none"],
)
def test_an_index_is_built_used_and_exact_enough(postgres: Postgres, url: str, options: str, schema: Schema) -> None:
    spec = schema.vectors["dense"]
    values = np.random.default_rng(3).normal(size=(2000, spec.dim)).astype(np.float32)
    with stores.connect(url + options, schema) as store:
        store.upsert(Record(f"r{i}", {"dense": values[i]}, {"n": i}) for i in range(len(values)))
        assert store.stats()["indexed"] == 0
        store.optimize()
        table = url.rpartition("=")[2]
        built = postgres.run(f"SELECT indexdef FROM pg_indexes WHERE indexname = '{table}_v0_index'")
        assert len(built) == (0 if "none" in options else 1)
        assert postgres.run(f"SELECT 1 FROM pg_stats WHERE tablename = '{table}' AND attname = 'id'"), "never analyzed"
        assert store.stats()["indexed"] == (0 if "none" in options else 2000)
        found = 0
        for seed in range(5):
            query = vector(seed, dim=spec.dim)
            truth = true_scores(spec.metric, query, {f"r{i}": value for i, value in enumerate(values)})
            best = sorted(truth, key=lambda i: -truth[i])[:10]
            hits = store.search(Query(Dense(query), k=10))
            found += len(set(best) & {hit.id for hit in hits})
            assert [hit.score for hit in hits] == pytest.approx([truth[hit.id] for hit in hits], abs=0.05)
            exact = store.search(Query(Dense(query), k=10, exact=True))
            if "halfvec" not in options:
                assert [hit.id for hit in exact] == best
        assert found >= 40
    with stores.connect(url) as store:
        assert store.search(Query(Dense(query), k=10, exact=True))[0].id == exact[0].id
        assert isinstance(store, pgvector.PgvectorStore)
        assert store._indexed == (set() if "none" in options else {"v0"})  # the next one to open knows of it


@pytest.mark.parametrize(
    ("options", "probes"),
    [
        ("&index=ivfflat&lists=50", "8"),
        ("&index=ivfflat&lists=4", "2"),
        ("&index=ivfflat", "2"),  # 3,000 records are 3 lists
        ("&index=ivfflat&lists=50&probes=3", "3"),
    ],
)
def test_as_many_lists_are_looked_into_as_the_root_of_what_there_are(url: str, options: str, probes: str) -> None:
    values = np.random.default_rng(3).normal(size=(3000, 4)).astype(np.float32)

    def told(store: Store) -> str:
        assert isinstance(store, pgvector.PgvectorStore)
        assert len(store.search(Query(Dense(values[0]), k=5))) == 5
        with store._connection() as connection:
            (value,) = connection.execute("SELECT current_setting('ivfflat.probes')").fetchone() or ("",)
        return str(value)

    with stores.connect(f"{url}&pool=1{options}", SCHEMA) as store:
        store.upsert(Record(f"r{i}", {"dense": values[i]}) for i in range(len(values)))
        told(store)  # the session is older than the index
        store.optimize()
        assert told(store) == probes
    with stores.connect(f"{url}&pool=1") as store:
        assert told(store) == probes


def test_a_condition_that_holds_for_few_finds_all_of_them_through_an_index(url: str) -> None:
    """An index scan gives up after 20,000 rows; the search then goes on without the index."""
    count = 3000
    with stores.connect(url, Schema({"dense": VectorSpec(8)}, fields={"n": "integer"})) as store:
        values = np.random.default_rng(3).normal(size=(count, 8)).astype(np.float32)
        store.upsert(Record(f"r{i}", {"dense": values[i]}, {"n": i, "even": i % 2 == 0}) for i in range(count))
        store.optimize()
        truth = true_scores("cosine", values[0], {f"r{i}": value for i, value in enumerate(values)})
        for where, ids in (
            ({"n": {"$in": [5, 2000, 2999]}}, ["r5", "r2000", "r2999"]),
            ({"even": True, "n": {"$gte": count - 20}}, [f"r{i}" for i in range(count - 20, count, 2)]),
            ({"n": -1}, []),
        ):
            hits = store.search(Query(Dense(values[0]), k=20, where=filters.parse(where)))
            check_ranking(hits, {i: truth[i] for i in ids}, 20)
        assert len(store.search(Query(Dense(values[0]), k=MAX_K))) == count
        fused = store.search(Query(Fused((Dense(values[0]), Dense(values[1]))), where=filters.parse({"n": 7})))
        assert [hit.id for hit in fused] == ["r7"]


def test_declared_and_undeclared_fields_are_looked_up_in_an_index(postgres: Postgres, url: str) -> None:
    schema = Schema({"dense": VectorSpec(4)}, fields={"n": "integer", "date": "datetime", "tag": "keyword"})
    with stores.connect(url, schema) as store:
        days = [f"20{i % 90 + 10}-01-01" for i in range(3000)]
        store.upsert(
            Record(f"r{i}", {"dense": vector(i)}, {"n": i, "tag": f"t{i}", "date": days[i], "free": i})
            for i in range(3000)
        )
        store.optimize()
        postgres.run(f"ANALYZE {url.rpartition('=')[2]}")
        assert isinstance(store, pgvector.PgvectorStore)
        for where, index in (
            ({"n": {"$gt": 2990}}, "_f0"),
            ({"date": "2055-01-01T02:00:00+02:00"}, "_f1"),
            ({"tag": {"$in": ["t1", "t2"]}}, "_f2"),
            ({"free": 7}, "_payload"),
            ({"free": "2055-01-01"}, "_instants"),
        ):
            condition = store._c.condition(filters.parse(where))
            with store._connection() as connection, connection.transaction():
                connection.execute("SET LOCAL enable_seqscan = off")  # which is cheaper for so few
                plan = connection.execute(
                    f"EXPLAIN SELECT id FROM {store._c.t} WHERE {condition.text}".encode(), condition.params
                ).fetchall()
            assert any(index in line for (line,) in plan), (where, plan)


def test_dimensions_that_no_index_takes_are_refused_with_what_to_do(url: str) -> None:
    wide = Schema({"dense": VectorSpec(2001)})
    with pytest.raises(UnsupportedError, match=r"2001 dimensions.*2000 here; use \?type=halfvec.*binary.*index=none"):
        stores.connect(url, wide)
    with pytest.raises(UnsupportedError, match="4000 here; use quantization binary"):
        stores.connect(url + "&type=halfvec", Schema({"dense": VectorSpec(4001)}))
    with pytest.raises(UnsupportedError, match="16000"):
        stores.connect(url + "&index=none", Schema({"dense": VectorSpec(16_001)}))
    with pytest.raises(NotACollection):  # nothing was made
        stores.connect(url)
    binary = Schema({"dense": VectorSpec(5000)}, index=IndexParams(quantization="binary"))
    with stores.connect(url, binary) as store:
        store.upsert([Record("a", {"dense": vector(0, dim=5000)})])
        assert store.search(Query(Dense(vector(0, dim=5000))))[0].score == pytest.approx(1, abs=1e-5)


def test_index_settings_that_pgvector_lacks_are_refused(url: str) -> None:
    for index in (
        IndexParams(m=101, ef_construct=400),
        IndexParams(ef_construct=1001),
        IndexParams(m=40, ef_construct=79),
        IndexParams(ef=1001),
        IndexParams(quantization="scalar"),
        IndexParams(quantization="product"),
    ):
        with pytest.raises(UnsupportedError):
            stores.connect(url, Schema({"dense": VectorSpec(4)}, index=index))
    for option in ("index=ivfflat", "index=none"):
        with pytest.raises(UnsupportedError):
            stores.connect(f"{url}&{option}", Schema({"dense": VectorSpec(4)}, index=IndexParams(m=12)))
    with stores.connect(url, SCHEMA) as store, pytest.raises(UnsupportedError, match="1000"):
        store.search(Query(Dense(vector(0)), ef=1001))


# --- words ---


def test_bm25_is_that_of_the_memory_store(url: str) -> None:
    """The same scores, also after texts were replaced and removed, and for a word of ten thousand letters."""
    schema = Schema({"dense": VectorSpec(4)}, text="body")
    source, long = random.Random(5), "x" * 10_000
    with stores.connect(url, schema) as store:
        reference = MemoryStore.create(schema)
        for step in range(6):
            records = []
            for i in range(step, 300, 1 + step % 3):
                words = source.choices(["apple", "pears", "plum", "running", "the", "Éclair", f"n{i}", long], k=i % 40)
                body = None if i % 17 == 0 else " ".join(words)
                records.append(Record(f"r{i}", {"dense": vector(i)}, {"body": body, "n": i}))
            for each in (store, reference):
                each.upsert(records)
                each.delete([f"r{i}" for i in range(step * 10, step * 10 + 5)])
                each.delete_where({"n": {"$in": [200 + step, 250]}})
        for asked in ("apples", "run plum", "éclairs n77 pear", long, "x" * 9999):
            for where in (None, filters.parse({"n": {"$lt": 120}})):
                got = store.search(Query(Text(asked), k=400, where=where))
                expected = reference.search(Query(Text(asked), k=400, where=where))
                check_ranking(got, {hit.id: hit.score for hit in expected}, 400)


# --- conditions and names ---


def test_nothing_that_is_given_becomes_sql(postgres: Postgres) -> None:
    evil = """x'); DROP TABLE "victim"; --%s %(a)s "quoted" """.strip()
    postgres.run("CREATE TABLE IF NOT EXISTS victim (a int)")
    schema = Schema({evil: VectorSpec(4)}, sparse=(evil + "s",), text=evil, fields={evil + "f": "keyword"})
    with stores.connect(postgres.url(table=evil[:40]), schema) as store:
        store.upsert([Record(evil, {evil: vector(0)}, {evil: evil, evil + "f": evil, "o": {evil: evil}})])
        for path in (evil, evil + "f", f"o.{evil}"):
            conditions = (
                {"$eq": evil},
                {"$in": [evil] * 2},
                {"$in": [evil, *map(str, range(99))]},
                {"$contains": evil},
            )
            for condition in (*conditions, {"$exists": True}, {"$not": {"$gt": 1}}, {"$not": {"$gt": "2024-01-01"}}):
                assert store.count({path: condition}) == 1, (path, condition)
        find = Fused((Dense(vector(0), evil), Text(evil)), "rrf")
        assert [hit.id for hit in store.search(Query(find, explain=True))] == [evil]
        assert store.get([evil])[0].payload[evil] == evil
        assert store.scan(evil).records == []
        store.delete_where({evil: evil})
        assert store.count() == 0
    assert postgres.run("SELECT count(*) FROM victim") == [(0,)]


def test_control_characters_are_told_apart(url: str) -> None:
    """PostgreSQL has no null character; what stands for it is neither equal to nor part of anything else."""
    texts = [
        "\x00",
        "\x01",
        "\x02",
        "\x03",
        "\x01\x02\x02",
        "\x01\x02",
        "\x02\x02",
        "\x00\x02",
        "\x02\x03\x00",
        "a\x00b",
        "ab",
    ]
    with stores.connect(url, SCHEMA) as store:
        reference = MemoryStore.create(SCHEMA)
        for each in (store, reference):
            each.upsert(Record(t, {"dense": [1, 1, 1, 1]}, {"t": t, "l": [t], t: 1}) for t in texts)
        assert [hit.id for hit in store.search(Query(Dense([1, 1, 1, 1]), k=20))] == sorted(texts)
        assert [record.id for record in store.scan_all()] == sorted(texts)
        for text in texts:
            for where in ({"t": text}, {"l": text}, {"t": {"$contains": text}}, {text: 1}):
                expected = {record.id for record in reference.scan_all(where=where)}
                assert {record.id for record in store.scan_all(where=where)} == expected


def test_an_answer_of_several_searches_is_of_one_snapshot(url: str) -> None:
    with stores.connect(url, SCHEMA) as store, stores.connect(url) as other:
        store.upsert([Record("a", {"dense": vector(0)})])
        assert isinstance(store, pgvector.PgvectorStore)
        before = store._search

        def and_write(connection: Any, query: Query) -> Any:
            hits = before(connection, query)
            other.upsert([Record(f"b{query.k}", {"dense": vector(1)})])
            return hits

        store._search = and_write  # type: ignore[method-assign]
        answers = store.search_many([Query(Dense(vector(0)), k=k) for k in (5, 6)])
        assert [[hit.id for hit in hits] for hits in answers] == [["a"], ["a"]]
        assert other.count() == 3


def test_threads_that_write_the_same_records_do_not_block_each_other(url: str) -> None:
    schema = Schema({"dense": VectorSpec(4)}, text="body")
    with stores.connect(url, schema) as store, ThreadPoolExecutor(4) as threads:
        records = [Record(f"r{i}", {"dense": vector(i)}, {"body": f"apple n{i}"}) for i in range(50)]
        orders = [random.Random(i).sample(records, len(records)) for i in range(16)]
        for done in [threads.submit(store.upsert, order) for order in orders]:
            done.result()
        reference = MemoryStore.create(schema)
        reference.upsert(records)
        query = Query(Text("apple n7"), k=50)
        check_ranking(store.search(query), {hit.id: hit.score for hit in reference.search(query)}, 50)


# --- opening, and what goes wrong ---


def test_what_is_not_ours_is_left_alone(postgres: Postgres, url: str) -> None:
    with pytest.raises(NotACollection, match="to make one, give a schema"):
        stores.connect(url)
    postgres.run("CREATE TABLE IF NOT EXISTS theirs (id int)")
    for schema in (None, SCHEMA):
        with pytest.raises(NotACollection, match="not a collection of nearest"):
            stores.connect(postgres.url(table="theirs"), schema)
    # The table of words would be in the way of another collection's: nothing of that one is left.
    postgres.run("CREATE TABLE IF NOT EXISTS taken_terms (id int)")
    lexical = Schema({"dense": VectorSpec(4)}, text="body")
    with pytest.raises(NotACollection, match="another name"):
        stores.connect(postgres.url(table="taken"), lexical)
    assert postgres.run("SELECT to_regclass('taken'), to_regclass('taken_corpus')") == [(None, None)]


def test_another_kind_of_collection_is_a_mismatch(url: str) -> None:
    stores.connect(f"{url}&type=halfvec", SCHEMA).close()
    stores.connect(url, SCHEMA).close()  # an option that is not given is the collection's
    with pytest.raises(SchemaMismatch, match="type was 'halfvec', now 'vector'"):
        stores.connect(f"{url}&type=vector", SCHEMA)
    with pytest.raises(SchemaMismatch, match="vectors was"):
        stores.connect(url, Schema({"dense": VectorSpec(5)}))


def test_two_that_create_at_once_open_one_collection(url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        opened = [done.result() for done in [threads.submit(stores.connect, url, SCHEMA) for _ in range(4)]]
    opened[0].upsert([Record("a", {"dense": vector(0)})])
    assert [store.count() for store in opened] == [1] * 4
    for store in opened:
        store.close()


def test_a_creation_that_is_cut_off_leaves_nothing(
    postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", crash)  # the mark is made after all tables
    with pytest.raises(KeyboardInterrupt):
        stores.connect(url, Schema({"dense": VectorSpec(4)}, text="body"))
    monkeypatch.undo()
    table = url.rpartition("=")[2]
    assert postgres.run(f"SELECT to_regclass('{table}'), to_regclass('{table}_terms')") == [(None, None)]
    stores.connect(url, SCHEMA).close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("&tabel=x", "no option 'tabel'; there are table, type, index"),
        ("&table=" + "x" * 49, "1 to 48 bytes"),
        ("&table=a%00b", "printable"),
        ("&type=bit", "vector or halfvec"),
        ("&index=flat", "hnsw, ivfflat or none"),
        ("&index=ivfflat&lists=0", "lists must be"),
        ("&lists=10", "belong to index=ivfflat"),
        ("&pool=many", "pool must be"),
        ("&timeout=-1", "timeout must be"),
    ],
)
def test_bad_options_are_refused(postgres: Postgres, options: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        stores.connect(postgres.url(database="postgres") + options, SCHEMA)


@pytest.mark.parametrize("url", ["postgresql:docs", "postgresql://[/x", "postgres://h/x?connect_timeout=soon"])
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"write postgresql://|connect_timeout"):
        stores.connect(url, SCHEMA)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "abc", "5432,i:70000"])
@pytest.mark.parametrize("form", ["postgresql://127.0.0.1:{}/x", "postgresql://127.0.0.1/x?port={}"])
def test_a_port_that_cannot_be_is_refused(form: str, port: str) -> None:
    with pytest.raises(InvalidInput, match="port must be an integer from 1 to 65535"):
        stores.connect(form.format(port), SCHEMA)


def test_a_port_of_each_host_is_taken() -> None:
    for url in ("postgresql://h:1,i:65535/x", "postgresql://h,i:5432/x", "postgresql:///x?host=/tmp"):
        pgvector._options(StoreURL.parse(url))


def test_a_server_that_is_not_there(postgres: Postgres) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        with pytest.raises(ConnectionFailed, match="server up") as caught:
            stores.connect(f"postgresql://127.0.0.1:{taken.getsockname()[1]}/x", SCHEMA)
        assert caught.value.retryable
    with pytest.raises(ConnectionFailed):
        stores.connect("postgresql://no-such-host.invalid/x", SCHEMA)
    with pytest.raises(NotACollection, match="CREATE DATABASE"):
        stores.connect(postgres.url(database="nowhere"), SCHEMA)


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TimedOut):
            stores.connect(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2", SCHEMA)


def test_a_wrong_password(postgres: Postgres) -> None:
    rules = postgres.folder / "pg_hba.conf"
    open_to_all = rules.read_text()
    postgres.run("DROP ROLE IF EXISTS locked", "CREATE ROLE locked LOGIN PASSWORD 'right'")
    rules.write_text("local all locked scram-sha-256\n" + open_to_all)
    try:
        postgres.run("SELECT pg_reload_conf()")
        with pytest.raises(AccessDenied, match="check the user and the password") as caught:
            stores.connect(postgres.url(user="locked", password="wrong"), SCHEMA)
        assert "wrong" not in str(caught.value)
        assert not caught.value.retryable
        with pytest.raises(AccessDenied):
            stores.connect(postgres.url(user="nobody"), SCHEMA)
    finally:
        rules.write_text(open_to_all)
        postgres.run("SELECT pg_reload_conf()")


def test_a_password_that_is_not_right_any_more(postgres: Postgres) -> None:
    rules = postgres.folder / "pg_hba.conf"
    open_to_all = rules.read_text()
    postgres.run("DROP ROLE IF EXISTS changed", "CREATE ROLE changed SUPERUSER LOGIN PASSWORD 'old'")
    rules.write_text("local all changed scram-sha-256\n" + open_to_all)
    try:
        postgres.run("SELECT pg_reload_conf()")
        url = postgres.url(user="changed", password="old", connect_timeout=1, table=f"own{next(_numbers)}")
        with nearest.connect(url, SCHEMA) as store:
            postgres.run(
                "ALTER ROLE changed PASSWORD 'new'",
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'changed'",
            )
            with pytest.raises(AccessDenied, match="check the user and the password") as caught:
                store.count()
            assert not caught.value.retryable
    finally:
        rules.write_text(open_to_all)
        postgres.run("SELECT pg_reload_conf()")


def test_a_user_who_may_not_create_the_extension(postgres: Postgres) -> None:
    database, table = postgres.database(), f"own{next(_numbers)}"
    postgres.run("DROP ROLE IF EXISTS limited", "CREATE ROLE limited LOGIN")
    url = postgres.url(database=database, user="limited", table=table)
    with pytest.raises(
        AccessDenied, match=f"administrator must run in database '{database}': CREATE EXTENSION vector;"
    ):
        stores.connect(url, SCHEMA)
    postgres.run("CREATE EXTENSION vector", database=database)
    with pytest.raises(AccessDenied, match="permission denied for schema public"):
        stores.connect(url, SCHEMA)
    postgres.run("GRANT CREATE ON SCHEMA public TO limited", database=database)
    with stores.connect(url, SCHEMA) as store:
        store.upsert([Record("a", {"dense": vector(0)})])
        postgres.run(f"ALTER TABLE {table} OWNER TO postgres", database=database)
        with pytest.raises(AccessDenied, match=table):
            store.count()


def test_a_database_of_another_encoding(postgres: Postgres) -> None:
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(UnsupportedError, match="UTF8"):
        stores.connect(postgres.url(database="latin"), SCHEMA)


def test_a_statement_over_its_time(url: str) -> None:
    with stores.connect(f"{url}&timeout=1", SCHEMA) as store:
        assert isinstance(store, pgvector.PgvectorStore)
        with pytest.raises(TimedOut, match="timeout="), store._connection() as connection:
            connection.execute("SELECT pg_sleep(30)")
        assert store.count() == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [("54000", ""), ("54001", "nested too deeply"), ("54011", "declare fewer"), ("54023", "limit"), ("54999", "limit")],
)
def test_what_is_over_a_limit_of_the_server_is_not_repeated(url: str, code: str, said: str) -> None:
    with stores.connect(url, SCHEMA) as store:
        assert isinstance(store, pgvector.PgvectorStore)
        with pytest.raises(InvalidInput, match=f"too much of it.*{said}") as caught, store._connection() as connection:
            connection.execute(f"DO $$ BEGIN RAISE 'too much of it' USING ERRCODE = '{code}'; END $$".encode())
        assert not caught.value.retryable


def test_a_condition_of_too_many_values_is_not_repeated(url: str) -> None:
    with stores.connect(url, SCHEMA) as store:
        where = filters.Or(tuple(filters.Comparison(("n",), "$eq", i) for i in range(65_536)))
        with pytest.raises(InvalidInput, match=r"too many values.*\$in") as caught:
            store._count(where)
        assert not caught.value.retryable
        assert store.count() == 0


def test_a_connection_that_was_cut_is_replaced(postgres: Postgres, url: str) -> None:
    with stores.connect(f"{url}&pool=1", SCHEMA) as store:
        assert isinstance(store, pgvector.PgvectorStore)
        with store._connection() as connection:
            number = connection.info.backend_pid
        postgres.run(f"SELECT pg_terminate_backend({number}, 5000)")
        with pytest.raises(ConnectionFailed) as caught:
            store.count()
        assert caught.value.retryable
        assert store.count() == 0


def test_a_transaction_that_was_idle_for_too_long_is_repeated(postgres: Postgres, url: str) -> None:
    """As a slow network makes it; nothing of it is kept."""
    with stores.connect(f"{url}&options=-cidle_in_transaction_session_timeout%3D100", SCHEMA) as store:
        assert isinstance(store, pgvector.PgvectorStore)
        with store._connection() as connection, connection.transaction():
            connection.execute(b"SELECT 1")
            while postgres.run(f"SELECT 1 FROM pg_stat_activity WHERE pid = {connection.info.backend_pid}"):
                pass
            with pytest.raises(ConnectionFailed, match="too slow, try again") as caught, pgvector._database_errors("x"):
                connection.execute(b"SELECT 1")
        assert caught.value.retryable
        assert store.count() == 0


def test_a_collection_that_was_dropped(postgres: Postgres, url: str) -> None:
    with stores.connect(url, SCHEMA) as store:
        postgres.run(f"DROP TABLE {url.rpartition('=')[2]}")
        with pytest.raises(NotACollection, match="dropped"):
            store.count()


def test_records_too_large_are_refused_before_anything_is_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgvector, "_MAX_PAYLOAD", 1000)  # truly 256 MiB
    many = SparseVector(np.arange(16_001, dtype=np.uint32), np.ones(16_001, np.float32))
    with stores.connect(f"{url}&type=halfvec", Schema({"dense": VectorSpec(4, "dot")}, sparse=("words",))) as store:
        for bad, said in (
            (Record("bad", {"dense": vector(0), "words": many}), "16001 values"),
            (Record("bad", {"dense": vector(0)}, {"t": "x" * 2000}), "split it"),
            (Record("bad", {"dense": [70_000, 0, 0, 0]}), "halfvec"),
        ):
            with pytest.raises(InvalidRecord, match=f"'bad'.*{said}"):
                store.upsert([Record("good", {"dense": vector(1)}), bad])
        assert store.count() == 0


def test_a_missing_client_says_how_to_install_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[pgvector\]'"):
        stores.connect(url, SCHEMA)
