"""The SQL sandbox: what is allowed works, what is hostile ends as an observation in time and changes nothing."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from turnwise_envs.sql.sandbox import Ending, Limits, Sandbox, connect_file, connect_memory

LIMITS = Limits(vm_steps=2_000_000, rows=5_000, bytes=500_000, seconds=10.0)
#: Wall-clock seconds that one statement may take; well above `LIMITS.seconds`, since machines can be busy.
PATIENCE = 90.0


def fill(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, born TEXT, pay REAL)")
    connection.execute("CREATE TABLE visits (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people(id), day TEXT)")
    people = [(n, f"Name {n}", f"19{n % 100:02d}-03-0{n % 9 + 1}", n * 1.5) for n in range(1, 2001)]
    connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", people)
    connection.executemany("INSERT INTO visits VALUES (?, ?, ?)", [(n, n % 700 + 1, "2023-05-01") for n in range(4000)])
    connection.execute("CREATE INDEX visits_person ON visits (person)")
    connection.commit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "town.sqlite"
    connection = sqlite3.connect(path)
    fill(connection)
    connection.close()
    return path


@pytest.fixture(scope="module")
def town(file: Path) -> Sandbox:
    return Sandbox(connect_file(file), today="2024-07-01 08:00:00", limits=LIMITS)


def open_files() -> int:
    """Open files of this process; 0 where that cannot be told."""
    handles = Path("/proc/self/fd")
    return len(list(handles.iterdir())) if handles.is_dir() else 0


def peak() -> int:
    """The most memory that this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _with_bomb(depth: int, body: str) -> str:
    parts = ["c0 AS (SELECT pay AS x FROM people)"]
    parts += [f"c{n} AS ({body.format(last=f'c{n - 1}')})" for n in range(1, depth)]
    return f"WITH {', '.join(parts)} SELECT COUNT(*) FROM c{depth - 1}"


#: Some 45,000 characters.
LONG = f"replace(printf('%900d', {{}}), ' ', '{'.' * 50}')"
WIDE = ", ".join([LONG.format(1)] * 60)
BIG = "replace(hex(quote(group_concat(name))), '4', 'aaaa')"

REFUSED, STOPPED, ERROR, LARGE = Ending.REFUSED, Ending.STOPPED, Ending.ERROR, Ending.TOO_LARGE
HOSTILE: list[tuple[str, str, set[Ending]]] = [
    # files
    ("attach a file", "ATTACH '/tmp/turnwise-hostile.db' AS evil", {REFUSED}),
    ("attach memory", "ATTACH ':memory:' AS evil", {REFUSED}),
    ("detach", "DETACH main", {REFUSED}),
    ("vacuum into", "VACUUM INTO '/tmp/turnwise-hostile.db'", {REFUSED, ERROR}),
    ("vacuum", "VACUUM", {REFUSED, ERROR}),
    ("writefile", "SELECT writefile('/tmp/turnwise-hostile.db', 'x')", {REFUSED, ERROR}),
    ("readfile", "SELECT readfile('/etc/passwd')", {REFUSED, ERROR}),
    ("edit", "SELECT edit('x', 'vi')", {REFUSED, ERROR}),
    ("load_extension", "SELECT load_extension('/tmp/evil.so')", {REFUSED, ERROR}),
    ("csv virtual table", "CREATE VIRTUAL TABLE temp.t USING csv(filename='/etc/passwd')", {REFUSED, ERROR}),
    ("fts tokenizer pointer", "SELECT fts3_tokenizer('simple')", {REFUSED, ERROR}),
    ("temp directory", "PRAGMA temp_store_directory = '/tmp'", {REFUSED}),
    # settings
    ("writable_schema", "PRAGMA writable_schema = ON", {REFUSED}),
    ("query_only off", "PRAGMA query_only = OFF", {REFUSED}),
    ("journal mode", "PRAGMA journal_mode = WAL", {REFUSED}),
    ("heap limit", "PRAGMA hard_heap_limit = 0", {REFUSED}),
    ("pragma as a function", "SELECT * FROM pragma_database_list", {REFUSED, ERROR}),
    ("compile options", "SELECT * FROM pragma_compile_options()", {REFUSED, ERROR}),
    # changes
    ("insert", "INSERT INTO people (name) VALUES ('x')", {REFUSED}),
    ("update", "UPDATE people SET pay = 0", {REFUSED}),
    ("delete behind a with", "WITH a AS (SELECT 1) DELETE FROM visits", {REFUSED}),
    ("replace", "REPLACE INTO people VALUES (1, 'x', NULL, 0)", {REFUSED}),
    ("drop", "DROP TABLE people", {REFUSED}),
    ("alter", "ALTER TABLE people RENAME TO crowd", {REFUSED}),
    ("create", "CREATE TABLE t AS SELECT * FROM people", {REFUSED}),
    ("temporary trigger", "CREATE TEMP TRIGGER t AFTER INSERT ON people BEGIN SELECT 1; END", {REFUSED}),
    ("catalogue", "UPDATE sqlite_master SET sql = ''", {REFUSED, ERROR}),
    ("transaction", "BEGIN EXCLUSIVE", {REFUSED}),
    ("savepoint", "SAVEPOINT s", {REFUSED}),
    ("reindex", "REINDEX", {REFUSED}),
    ("analyze", "ANALYZE", {REFUSED}),
    # several statements
    ("two statements", "SELECT 1; DROP TABLE people", {ERROR, REFUSED}),
    ("statement behind a comment", "SELECT 1 /* ; */ ; -- x\n DELETE FROM people", {ERROR, REFUSED}),
    ("null character", "SELECT 1\x00; DROP TABLE people", {ERROR}),
    ("lone surrogate", "SELECT '\ud800'", {ERROR}),
    ("empty", " ;-- nothing", {ERROR, REFUSED, Ending.OK}),
    ("parameter", "SELECT ?", {ERROR}),
    # work without end
    ("recursive bomb", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r", {STOPPED}),
    ("recursive rows", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r", {LARGE}),
    ("cross join", "SELECT COUNT(*) FROM people a, people b, people c", {STOPPED}),
    ("cross join of sixty", f"SELECT COUNT(*) FROM {', '.join(f'people p{n}' for n in range(60))}", {STOPPED}),
    ("sorted cross join", "SELECT a.name || b.name AS n FROM visits a, people b, people a ORDER BY n", {STOPPED, ERROR}),
    ("sort with long keys", f"SELECT {LONG.format('a.id + b.id')} AS n FROM people a, people b ORDER BY n DESC", {STOPPED}),
    ("correlated", "SELECT COUNT(*) FROM people a WHERE (SELECT COUNT(*) FROM people b WHERE b.pay + a.pay > 1) > 0", {STOPPED}),
    ("doubling WITH", _with_bomb(40, "SELECT a.x FROM {last} a, {last} b"), {REFUSED}),
    ("doubling WITH as strings", _with_bomb(40, "SELECT a.x FROM '{last}' a, '{last}' b"), {REFUSED}),
    ("doubling expressions", _with_bomb(40, "SELECT x + x AS x FROM {last}").replace("COUNT(*)", "x"), {STOPPED, ERROR}),
    ("twenty copies a level", _with_bomb(8, f"SELECT {'+'.join('x' * 20)} AS x FROM {{last}}").replace("COUNT(*)", "x"), {STOPPED, ERROR}),
    ("a name defined twice", "WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a", {REFUSED}),
    # memory
    ("zeroblob", "SELECT zeroblob(2000000000)", {REFUSED}),
    ("randomblob", "SELECT hex(randomblob(1000000000))", {REFUSED}),
    ("printf width", "SELECT printf('%2000000000d', 1)", {LARGE}),
    ("printf precision", "SELECT printf('%.*c', 2000000000, 'x')", {LARGE}),
    ("replace growth", f"SELECT length(replace({BIG}, 'a', {BIG})) FROM people", {LARGE}),
    ("string doubling", "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM r) SELECT length(s) FROM r", {LARGE}),
    ("group_concat", "SELECT group_concat(a.name || b.name) FROM people a, people b", {LARGE, STOPPED}),
    ("many columns", f"SELECT {', '.join(['1'] * 3000)}", {ERROR}),
    ("wide rows", f"SELECT {WIDE} FROM people", {LARGE}),
    # slow functions
    ("like bomb", f"SELECT ({BIG} || '!') LIKE '{'%a' * 90}b' FROM people", {STOPPED, Ending.OK, LARGE}),
    ("glob bomb", f"SELECT ({BIG} || '!') GLOB '{'*a' * 90}b' FROM people", {STOPPED, Ending.OK, LARGE}),
    ("long pattern", f"SELECT name LIKE '{'%a' * 5000}' FROM people", {ERROR, LARGE}),
    (
        "instr",
        f"SELECT SUM(instr({LONG.format('a.id')}, substr({LONG.format(1)}, 1, 20000) || 'x')) FROM people a, people b",
        {STOPPED},
    ),
    ("trim", f"SELECT SUM(length(trim({LONG.format('id')}, {LONG.format(5)}))) FROM people", {Ending.OK, STOPPED}),
    # nesting and length
    ("deep parentheses", f"SELECT {'(' * 5000}1{')' * 5000}", {ERROR}),
    ("deep subqueries", f"SELECT * FROM {'(SELECT * FROM ' * 500}people{')' * 500}", {ERROR, REFUSED}),
    ("long sum", f"SELECT {'1+' * 9000}1", {ERROR}),
    ("compound of many", " UNION ALL ".join(["SELECT 1"] * 600), {ERROR}),
    ("a megabyte of text", f"SELECT '{'x' * 1_000_000}'", {REFUSED}),
    # looking where one should not, and chance
    ("other statements", "SELECT sql FROM sqlite_stmt", {REFUSED, ERROR}),
    ("pages", "SELECT * FROM dbstat", {REFUSED, ERROR}),
    ("number of pages", "SELECT COUNT(*) FROM dbstat", {REFUSED, ERROR}),
    ("json rows", "SELECT value FROM json_each('[1]')", {REFUSED, ERROR}),
    ("random", "SELECT name FROM people ORDER BY random() LIMIT 1", {REFUSED}),
    ("connection state", "SELECT total_changes(), last_insert_rowid()", {REFUSED}),
    ("version", "SELECT sqlite_version()", {REFUSED}),
]  # fmt: skip


def test_the_list_is_long_enough() -> None:
    assert len({name for name, _, _ in HOSTILE}) == len(HOSTILE) >= 60


@pytest.mark.parametrize(("sql", "endings"), [pytest.param(*case[1:], id=case[0]) for case in HOSTILE])
def test_hostile_statements_end_as_outcomes(town: Sandbox, sql: str, endings: set[Ending]) -> None:
    begun = time.monotonic()
    outcome = town.run(sql)
    assert time.monotonic() - begun < PATIENCE
    assert outcome.ending in endings
    assert outcome.ok or 0 < len(outcome.message) < 500
    assert len(outcome.rows) <= LIMITS.rows
    assert town.run("SELECT COUNT(*), MIN(name) FROM people").rows == [(2000, "Name 1")]  # still there, still usable


def test_the_host_is_unchanged(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file appears or changes, memory stays bounded, and no thread or handle is left behind."""
    monkeypatch.chdir(tmp_path)
    before = file.read_bytes()
    sandbox = Sandbox(connect_file(file), today="2024-07-01 08:00:00", limits=LIMITS)
    sandbox.run("SELECT 1")
    threads, handles, most = threading.active_count(), open_files(), peak()
    for _, sql, _ in HOSTILE:
        if "people b" not in sql:  # those take seconds and leave no more behind than their neighbours
            sandbox.run(sql)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/turnwise-hostile.db").exists()
    assert threading.active_count() <= threads
    assert open_files() <= handles
    assert peak() - most < 2**20  # the heap limit is a fifth of that


def test_the_deadline_counts_steps_not_seconds(file: Path) -> None:
    """The same query ends in the same way however often it runs, and a larger budget lets it through."""
    query = "SELECT COUNT(*) FROM people a, people b WHERE a.id < 400 AND a.pay < b.pay"
    strict = Sandbox(connect_file(file), today="2024-07-01", limits=Limits(vm_steps=500_000))
    assert {strict.run(query).ending for _ in range(5)} == {Ending.STOPPED}
    assert "500000 steps" in strict.run(query).message
    assert Sandbox(connect_file(file), today="2024-07-01", limits=Limits(vm_steps=50_000_000)).run(query).ok


def test_seconds_stand_behind_the_steps(file: Path) -> None:
    patient = Limits(vm_steps=10**12, seconds=2.0)
    sandbox = Sandbox(connect_file(file), today="2024-07-01", limits=patient)
    begun = time.monotonic()
    assert sandbox.run("SELECT COUNT(*) FROM people a, people b, people c").ending is Ending.STOPPED
    assert time.monotonic() - begun < PATIENCE
    assert sandbox.run("SELECT COUNT(*) FROM people").rows == [(2000,)]


def test_caps_keep_the_rows_so_far(town: Sandbox) -> None:
    outcome = town.run("SELECT id FROM people ORDER BY id", max_rows=3)
    assert outcome.ending is Ending.TOO_LARGE
    assert outcome.rows == [(1,), (2,), (3,)]
    assert town.run("SELECT id FROM people LIMIT 3", max_rows=3).ok
    assert town.run("SELECT printf('%900d', id) FROM people").message == "The result has more than 500000 bytes."


def test_ordinary_sql_works(town: Sandbox) -> None:
    """Functions, windows, recursion, catalogue and harmless pragmas are there."""
    windows = "SELECT id, SUM(pay) OVER (ORDER BY id), LAG(id) OVER (ORDER BY id) FROM people ORDER BY id LIMIT 2"
    assert town.run(windows).rows == [(1, 1.5, None), (2, 4.5, 1)]
    counted = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT SUM(n) FROM r"
    assert town.run(counted).rows == [(10,)]
    assert town.run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1").rows == [("people",), ("visits",)]
    assert [row[1] for row in town.run("PRAGMA table_info(visits)").rows] == ["id", "person", "day"]
    assert town.run("PRAGMA foreign_key_list(visits)").rows[0][2] == "people"
    chained = (
        "WITH a AS (SELECT id, pay FROM people), b AS (SELECT a.id, a.pay FROM a WHERE a.pay > 10), "
        "c AS (SELECT b.id FROM b JOIN a ON a.id = b.id) SELECT COUNT(*) FROM c, b WHERE b.id = c.id"
    )
    assert town.run(chained).rows == [(1994,)]
    assert town.run("SELECT COUNT(*) FROM \"people\" WHERE name LIKE '%99'").rows == [(20,)]


@pytest.mark.parametrize(
    "expression",
    [
        "instr('abcabc', 'ca')", "instr('abc', 'x')", "instr(NULL, 'x')", "instr(12345, 34)", "instr(1.0, '.')",
        "replace('banana', 'an', 'AN')", "replace('abc', '', 'x')", "replace('a', 'a', NULL)", "replace(1e20, '0', 'x')",
        "trim('xxabcxx', 'x')", "ltrim('  a ', ' ')", "rtrim('abcba', 'ab')", "trim(NULL, 'x')", "trim('xyx', 'xy')",
        "trim('  a ')", "date('2024-02-28', '+2 days')", "strftime('%Y', '2023-11-05')", "strftime('%m-%d', NULL)",
        "datetime('2024-01-01', 'start of year', '-1 second')", "julianday('2000-01-01')", "date('nonsense')",
        "round(julianday('2024-03-01') - julianday('2024-02-01'))", "time('12:30:15')", "strftime('%W', '2024-07-01')",
    ],
)  # fmt: skip
def test_replaced_functions_agree_with_sqlite(town: Sandbox, expression: str) -> None:
    expected = sqlite3.connect(":memory:").execute(f"SELECT {expression}, typeof({expression})").fetchall()
    assert town.run(f"SELECT {expression}, typeof({expression})").rows == expected


def test_the_clock_stands_still(town: Sandbox) -> None:
    now = "SELECT date('now'), CURRENT_TIMESTAMP, date(), strftime('%Y', 'now'), datetime('n' || 'ow', 'localtime'), current_date"
    assert town.run(now).rows == [
        ("2024-07-01", "2024-07-01 08:00:00", "2024-07-01", "2024", "2024-07-01 08:00:00", "2024-07-01")
    ]
    assert town.run("SELECT CAST(strftime('%Y', 'now') AS INT) - 1990").rows == [(34,)]


def test_a_copy_is_private_and_can_be_written_to() -> None:
    connection = connect_memory()
    fill(connection)
    shared = Sandbox(connection, today="2024-07-01", limits=LIMITS)
    private = shared.copy()
    outcome = private.run("UPDATE people SET pay = 0 WHERE id <= 10")
    assert outcome.ok
    assert outcome.changed == 10
    assert private.run("DELETE FROM visits WHERE person = 1").changed == 6
    assert private.run("DELETE FROM visits WHERE person = 1").changed == 0
    assert private.written == {"people", "visits"}
    assert private.run("SELECT SUM(pay) FROM people WHERE id <= 10").rows == [(0.0,)]
    assert shared.run("SELECT SUM(pay) FROM people WHERE id <= 10").rows == [(82.5,)]
    for sql in (
        "DROP TABLE visits",
        "CREATE TABLE t (a)",
        "UPDATE sqlite_master SET sql = ''",
        "BEGIN",
        "PRAGMA user_version = 3",
    ):
        assert private.run(sql).ending in (REFUSED, ERROR), sql
    filling = "INSERT INTO visits (day) SELECT printf('%900d', a.id) FROM people a, people b"
    assert not private.run(filling).ok
    assert private.run("SELECT COUNT(*) FROM visits").rows == [(3994,)]  # a statement that fails leaves nothing
    private.close()


def test_statements_of_several_threads_keep_apart(town: Sandbox) -> None:
    """Sessions of one worker share the connection; each gets its own rows and its own deadline."""
    found: dict[int, list[object]] = {}

    def ask(number: int) -> None:
        found[number] = [town.run(f"SELECT {number}, COUNT(*) FROM people WHERE id > {number}").rows for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[(number, 2000 - number)]] * 20 for number in range(8)}
