"""One SQLite database, in a file or in memory, for any number of threads, processes and forks."""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

# SQLite forbids to carry a connection across a fork (https://sqlite.org/howtocorrupt.html, 2.6): without the
# locks that it believes to hold, the child loses what it writes. Python offers fork hooks per process only. So a
# fork waits until no database is at work, and files are closed until the next use, on both sides. What is in
# memory is copied, as all memory is.
_registering = threading.Lock()
_alive: "weakref.WeakSet[Database]" = weakref.WeakSet()
_held: "list[Database]" = []


_TRIES = 5
"""How often to open a file that others are just making: seen was one failure in 900 openings at once."""


class _GoneError(sqlite3.OperationalError):
    """A file that SQLite was to delete was deleted by another process."""


class BusyError(sqlite3.OperationalError):
    """Somebody else is at work in the file for longer than whoever writes has patience."""


class UnusableFileError(ValueError):
    """The file is damaged, or of another version."""


class Database:
    """Open the file *path*, made for its owner's eyes only if it is new, or a database in memory if it is None.

    One connection serves all threads, one statement or transaction at a time, as SQLite itself would have it.

    Args:
        path: the file, or None.
        what: what messages call it.
        schema: the statements that make its tables.
        owner: the number in the file's header that tells our file from somebody else's.
        version: of the schema.
        upgrades: the statements that turn a file of the version that they stand under into the next one.
        patience: seconds to wait for another process that is writing.

    Raises:
        UnusableFileError: the file is damaged, or of another version.
        ValueError: the file cannot be opened, or is somebody else's database.
    """

    _db: sqlite3.Connection | None = None

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        what: str,
        schema: str,
        owner: int,
        version: int,
        upgrades: Mapping[int, str] | None = None,
        patience: float,
    ) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._what = what
        self._schema = schema
        self._owner = owner
        self._version = version
        self._upgrades = upgrades or {}
        self._patience = patience
        self._closed = False
        self._lock = threading.Lock()
        self.opened = 0
        """How many connections there were: a new one counts the changes of the others from anew."""
        self._connect()
        with _registering:
            _alive.add(self)

    @property
    def path(self) -> Path | None:
        """The file; None in memory."""
        return self._path

    def run(self, statement: str, *values: object) -> list[Any]:
        """Run one statement in autocommit mode and return its rows."""
        with self._lock:
            return self._connection().execute(statement, values).fetchall()

    @contextmanager
    def transaction(
        self, kind: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED", *, patience: float | None = None
    ) -> Iterator[sqlite3.Connection]:
        """Run the block's statements as one; an error in it undoes them.

        Raises BusyError if the file, or this object, is not free within *patience* seconds; the file's own if that is None.
        """
        if not self._lock.acquire(timeout=-1 if patience is None else patience):
            raise BusyError(f"the {self._what} is busy")
        try:
            with self._connection() as db:
                self._begin(db, kind, patience)
                yield db
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file; what was written stays."""
        with self._lock:
            self._closed = True
            self._release()

    def __del__(self) -> None:
        # Nobody closes a database in memory. No lock: the collector may run while this thread holds it.
        self._release()

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise ValueError(f"the {self._what} is closed: make another one for the same path")
        return self._db or self._connect()

    def _begin(self, db: sqlite3.Connection, kind: str, patience: float | None) -> None:
        if patience is None:
            db.execute(f"BEGIN {kind}")
            return
        db.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")
        try:
            db.execute(f"BEGIN {kind}")
        except sqlite3.OperationalError as problem:
            is_busy = problem.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            raise BusyError(str(problem)) if is_busy else problem from None
        finally:
            db.execute(f"PRAGMA busy_timeout = {self._patience * 1000:.0f}")

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _connect(self) -> sqlite3.Connection:
        try:
            self._db = self._open_again()
        except (OSError, sqlite3.OperationalError) as problem:  # locked, not readable, disk full: the file may be sound
            raise ValueError(
                f"cannot open the {self._what} {str(self._path)!r}: {problem}; give a file of its own in a folder that "
                f"exists and may be written, or path=None to keep it in memory"
            ) from problem
        except sqlite3.DatabaseError as problem:
            raise UnusableFileError(
                f"the {self._what} {str(self._path)!r} cannot be used: {problem}; give a file of its own"
            ) from problem
        self.opened += 1
        return self._db

    def _open_again(self) -> sqlite3.Connection:
        for _ in range(_TRIES):
            # Of two processes that find a new file and the leftover of an old one at once, both delete the leftover.
            with suppress(_GoneError):
                return self._open()
        return self._open()

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            _create_private(self._path)
        name = ":memory:" if self._path is None else str(self._path)
        db = sqlite3.connect(name, timeout=self._patience, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        try:
            # Rows of some 2 kB would leave half of each of SQLite's usual 4 kB pages empty; holds for a new file only.
            db.execute("PRAGMA page_size = 16384")
            found = self._found(db)
            _write_ahead(db, self._patience)
            # WAL with NORMAL survives any crash of the process; a power cut may lose the last writes, never the file.
            db.execute("PRAGMA synchronous = NORMAL")
            # What a trigger changes is noted so that it can be undone; noted in a file, that took half of an append.
            db.execute("PRAGMA temp_store = MEMORY")
            if found != self._version:
                self._prepare(db)
        except BaseException as problem:
            db.close()
            if getattr(problem, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_DELETE_NOENT:
                raise _GoneError(str(problem)) from problem
            raise
        return db

    def _found(self, db: sqlite3.Connection) -> int | None:
        """Read the version of the tables; None for an empty file."""
        with db:
            db.execute("BEGIN")  # one view of the file: another process may be making its tables just now
            owner, version, tables = (
                _number(db, query)
                for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
            )
        if owner == self._owner and version != self._version and version not in self._upgrades:
            raise UnusableFileError(
                f"the {self._what} {str(self._path)!r} has schema version {version}, and this release keeps version "
                f"{self._version}: give another path, and keep the file for the release that wrote it"
            )
        if owner != self._owner and (owner or version or tables):
            raise ValueError(
                f"{str(self._path)!r} is a database, but not a {self._what}: give the {self._what} a file of its own"
            )
        return version if owner == self._owner else None

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables, or bring them to this version, all or nothing."""
        with db:
            db.execute("BEGIN IMMEDIATE")
            steps = [self._schema]
            if _number(db, "PRAGMA application_id") == self._owner:
                steps = [self._upgrades[n] for n in range(_number(db, "PRAGMA user_version"), self._version)]
            if not steps:
                return  # another process was faster
            for statement in _statements(";".join(steps)):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {self._owner}")
            db.execute(f"PRAGMA user_version = {self._version}")


def _statements(script: str) -> Iterator[str]:
    """Split at the semicolons, except at those inside a trigger."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchall()[0][0])


def _create_private(path: Path) -> None:
    # Only a new file may be opened here: closing it again would drop the locks that another connection of this
    # process holds (https://sqlite.org/howtocorrupt.html, 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _write_ahead(db: sqlite3.Connection, patience: float) -> None:
    # Two connections that switch at once both fail without waiting, unlike those that write at once.
    give_up = time.monotonic() + patience
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


# The hooks are the other half of the class.
# ruff: noqa: SLF001


def _before_fork() -> None:
    _registering.acquire()
    for database in list(_alive):
        database._lock.acquire()
        _held.append(database)
        if database._path is not None:
            database._release()


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()
    _registering.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
