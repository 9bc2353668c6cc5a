"""The one SQLite database under cache and ledger: threads, processes, forks, and files that are not ours."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from llm_costopt import database as database_module
from llm_costopt.database import Database, UnusableFileError


def _open(path: Path | None, *, owner: int = 7, version: int = 1) -> Database:
    schema = "CREATE TABLE t (n INTEGER UNIQUE)"
    return Database(path, what="thing", schema=schema, owner=owner, version=version, patience=0.1)


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    """A file keeps its rows across connections, and only its owner may read it."""
    first = _open(tmp_path / "a.db")
    first.run("INSERT INTO t VALUES (?)", 1)
    first.close()
    second = _open(tmp_path / "a.db")

    assert [tuple(row) for row in second.run("SELECT n FROM t")] == [(1,)]
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600


def test_an_error_undoes_the_transaction() -> None:
    """Of a transaction that fails in the middle, nothing stays, and the database goes on."""
    database = _open(None)

    def twice() -> None:
        with database.transaction("IMMEDIATE") as db:
            db.execute("INSERT INTO t VALUES (1)")
            db.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(sqlite3.IntegrityError):
        twice()
    assert database.run("SELECT count(*) FROM t")[0][0] == 0


def test_threads_share_one_connection() -> None:
    """Writes of many threads all arrive."""
    database = _open(None)
    threads = [
        threading.Thread(target=lambda k=k: [database.run("INSERT INTO t VALUES (?)", 100 * k + n) for n in range(100)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert database.run("SELECT count(*) FROM t")[0][0] == 400


def test_two_databases_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """While one database is in a transaction, another one answers."""
    one, other = _open(tmp_path / "one.db"), _open(None)
    with one.transaction("IMMEDIATE"):
        other.run("INSERT INTO t VALUES (1)")

    assert other.run("SELECT count(*) FROM t")[0][0] == 1


def test_a_closed_database_says_so() -> None:
    """Using it after `close` is a clear error."""
    database = _open(None)
    database.close()

    with pytest.raises(ValueError, match="the thing is closed"):
        database.run("SELECT 1")


@pytest.mark.parametrize("version", [2, 0])
def test_another_version_is_not_touched(tmp_path: Path, version: int) -> None:
    """A file of another schema version is refused with the way out."""
    _open(tmp_path / "a.db", version=version).close()

    with pytest.raises(UnusableFileError, match="schema version"):
        _open(tmp_path / "a.db")


STEPS = {1: "ALTER TABLE t ADD COLUMN a DEFAULT 8; CREATE TABLE u (n)", 2: "ALTER TABLE t ADD COLUMN b DEFAULT 9"}


def _of_version_3(path: Path, steps: dict[int, str]) -> Database:
    schema = "CREATE TABLE t (n INTEGER UNIQUE, a, b); CREATE TABLE u (n)"
    return Database(path, what="thing", schema=schema, owner=7, version=3, upgrades=steps, patience=5)


def test_an_older_file_is_brought_to_the_current_version(tmp_path: Path) -> None:
    """Every step from the file's version on is taken, once, and the rows stay."""
    with _open(tmp_path / "a.db").transaction() as old:
        old.execute("INSERT INTO t VALUES (1)")
    for _ in range(2):
        database = _of_version_3(tmp_path / "a.db", STEPS)
        rows = [tuple(row) for row in database.run("SELECT n, a, b FROM t")]
        version = database.run("PRAGMA user_version")[0][0]
        database.close()

    assert (rows, version) == ([(1, 8, 9)], 3)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Of steps that fail in the middle, nothing stays, and the version is still the old one."""
    _open(tmp_path / "a.db").close()
    with pytest.raises(ValueError, match="cannot open the thing"):
        _of_version_3(tmp_path / "a.db", {**STEPS, 2: "ALTER TABLE missing ADD COLUMN b"})
    database = _open(tmp_path / "a.db")

    assert [row["name"] for row in database.run("PRAGMA table_info(t)")] == ["n"]


def test_an_upgrade_by_another_process_in_between_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has found the old version, but comes second, takes no step again."""
    path, write_ahead = tmp_path / "a.db", database_module._write_ahead
    _open(path).close()

    def overtaken(*args: Any) -> None:
        monkeypatch.undo()
        _of_version_3(path, STEPS).close()
        write_ahead(*args)

    monkeypatch.setattr(database_module, "_write_ahead", overtaken)
    database = _of_version_3(path, STEPS)

    assert [row["name"] for row in database.run("PRAGMA table_info(t)")] == ["n", "a", "b"]


def test_a_strangers_database_is_not_touched(tmp_path: Path) -> None:
    """Somebody else's database and a file that is none are refused, and stay as they were."""
    _open(tmp_path / "a.db", owner=8).close()
    (tmp_path / "b.db").write_bytes(b"no database at all, only a text that is long enough to be read as a header" * 9)
    before = (tmp_path / "b.db").read_bytes()

    with pytest.raises(ValueError, match="but not a thing") as refused:
        _open(tmp_path / "a.db")
    assert not isinstance(refused.value, UnusableFileError)
    with pytest.raises(UnusableFileError, match="cannot be used"):
        _open(tmp_path / "b.db")
    assert (tmp_path / "b.db").read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A path that cannot be opened is reported with the way out."""
    with pytest.raises(ValueError, match="folder that exists"):
        _open(tmp_path / "missing" / "a.db")


FORK = """
import os, sys
from pathlib import Path
from llm_costopt.database import Database

def rows(database):
    return database.run("SELECT count(*) FROM t")[0][0]

def files():
    return [os.readlink(f) for f in (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")) if os.path.exists(f)]

open_ = lambda path: Database(path, what="thing", schema="CREATE TABLE t (n INTEGER)", owner=7, version=1, patience=5)
on_disk, in_memory = open_(sys.argv[1]), open_(None)
for database in (on_disk, in_memory):
    database.run("INSERT INTO t VALUES (1)")
assert any(name.startswith(sys.argv[1]) for name in files())
if (child := os.fork()) == 0:
    inherited = [name for name in files() if name.startswith(sys.argv[1])]
    on_disk.run("INSERT INTO t VALUES (2)")
    in_memory.run("INSERT INTO t VALUES (2)")
    os._exit(0 if not inherited and rows(on_disk) == rows(in_memory) == 2 else 1)
assert os.waitpid(child, 0)[1] == 0
assert (rows(on_disk), rows(in_memory)) == (2, 1)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux does")
def test_no_open_file_crosses_a_fork(tmp_path: Path) -> None:
    """The child inherits no connection to the file, both sides go on with it, and memory is each one's own."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path / "a.db")], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
