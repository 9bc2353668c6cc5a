"""The store of the cache: what a file keeps, for whom, and what happens to a file that is no use."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_costopt.cache import sqlite as sqlite_module
from llm_costopt.cache.sqlite import SQLiteStore
from llm_costopt.cache.store import Entry, Selection


def put(store: SQLiteStore, exact: str, **fields: Any) -> int:
    """Store an entry of which only some fields matter."""
    defaults: dict[str, Any] = {
        "scope": "s",
        "text": "t",
        "payload": "p",
        "answer": "a",
        "says": 0,
        "stored_at": 1.0,
        "used_at": fields.get("stored_at", 1.0),
        "expires_at": None,
    }
    beside = fields.pop("vector", None), fields.pop("embedder", None), fields.pop("sketch", b"")
    return store.put(Entry(exact=exact, **defaults | fields), *beside)


def run_python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Name a file that is not there yet."""
    return tmp_path / "cache.db"


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, file: Path) -> Iterator[SQLiteStore]:
    """Make an empty store of each kind."""
    made = SQLiteStore(None if request.param == "memory" else file)
    yield made
    made.close()


def test_an_entry_comes_back_as_it_was(store: SQLiteStore) -> None:
    """All fields survive, text of any kind included, by the digest and by the id."""
    text = "Grüße, 你好 \x00 '; DROP TABLE entries"
    number = put(store, "a", scope="s1", text=text, payload='{"x": 1}', stored_at=5.5, expires_at=9.25)
    entry = store.get("a")

    assert entry == store.by_id(number)
    assert entry is not None
    assert (entry.id, entry.scope, entry.text, entry.payload) == (str(number), "s1", text, '{"x": 1}')
    assert (entry.stored_at, entry.expires_at, entry.used_at) == (5.5, 9.25, 5.5)
    assert store.get("b") is None
    assert store.by_id(number + 1) is None


def test_put_replaces(store: SQLiteStore) -> None:
    """The same request stored again is one entry, with the new answer, age and vector, and the id stays."""
    first = put(store, "a", payload="old", stored_at=1.0, expires_at=2.0)
    vector = np.asarray([0.6, 0.8], dtype=np.float32)
    second = put(store, "a", payload="new", stored_at=3.0, expires_at=None, vector=vector, embedder="e")
    entry = store.get("a")

    assert first == second
    assert len(store) == 1
    assert entry is not None
    assert (entry.payload, entry.stored_at, entry.expires_at, entry.used_at) == ("new", 3.0, None, 3.0)
    assert [(row.id, list(row.vector)) for row in store.vectors("e", 0)] == [(first, list(vector))]


def test_vectors_are_listed_by_embedder_and_id(store: SQLiteStore) -> None:
    """Only vectors of the named embedder with ids above the given one come, in order."""
    vector = np.ones(3, dtype=np.float32)
    put(store, "none")
    mine = [put(store, exact, scope=exact, text=exact, says=7, vector=vector, embedder="mine") for exact in "abc"]
    put(store, "other", vector=vector, embedder="other")

    first, *later = store.vectors("mine", 0)
    assert [row.id for row in (first, *later)] == mine
    assert [(r.id, r.scope, r.text, r.says) for r in store.vectors("mine", first.written)] == [
        (mine[1], "b", "b", 7),
        (mine[2], "c", "c", 7),
    ]


def test_vectors_are_read_a_page_at_a_time(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, all come, each once and in order, with what is stored in the meantime, and their sketches."""
    monkeypatch.setattr(sqlite_module, "_PAGE", 3)
    ids = [put(store, f"{n}", vector=np.ones(3, dtype=np.float32), embedder="e", sketch=b"%d" % n) for n in range(7)]
    listed = store.vectors("e", 0)
    first = next(listed)
    late = put(store, "late", vector=np.ones(3, dtype=np.float32), embedder="e", sketch=b"late")

    rows = [first, *listed]
    assert [row.id for row in rows] == [*ids, late]
    assert [row.sketch for row in rows] == [*(b"%d" % n for n in range(7)), b"late"]


def test_what_is_stored_anew_is_listed_anew(store: SQLiteStore) -> None:
    """An entry that is replaced comes after all that was written before, so that others learn of it."""
    vector = np.ones(3, dtype=np.float32)
    ids = [put(store, exact, vector=vector, embedder="e") for exact in "ab"]
    last = [row.written for row in store.vectors("e", 0)][-1]
    put(store, "a", vector=vector, embedder="e", expires_at=9.0)

    assert [(row.id, row.expires_at) for row in store.vectors("e", last)] == [(ids[0], 9.0)]


def test_what_was_parted_is_remembered_while_the_entry_is_there(store: SQLiteStore) -> None:
    """A pair that must not be matched again comes back, until room is made where its entry was."""
    one, two = put(store, "a", used_at=2.0), put(store, "b", used_at=1.0)
    for _ in range(2):
        store.part("q", one)
    store.part("q", two)
    store.part("r", two)

    assert (store.parted("q"), store.parted("r"), store.parted("s")) == ({one, two}, {two}, set())
    store.shrink(1, 0.0)
    assert (store.parted("q"), store.parted("r")) == ({one}, set())
    store.clear()
    assert store.parted("q") == set()


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (Selection(), "abc"),
        (Selection(tags=frozenset({"x"})), "ab"),
        (Selection(tags=frozenset({"y", "z"})), "bc"),
        (Selection(tags=frozenset({'"x"', "x%"})), ""),
        (Selection(model="m1"), "a"),
        (Selection(model="m"), ""),
        (Selection(stored_before=2.0), "a"),
        (Selection(tags=frozenset({"x"}), model="m2", stored_before=9.0), "b"),
    ],
)
def test_entries_are_selected_by_all_that_is_said(store: SQLiteStore, which: Selection, names: str) -> None:
    """Any of the tags, the very model and the time of storing narrow the choice together."""
    ids = {
        "a": put(store, "a", tags=("x",), model="m1", stored_at=1.0),
        "b": put(store, "b", tags=("x", "y"), model="m2", stored_at=2.0),
        "c": put(store, "c", tags=("z",), stored_at=3.0),
    }

    assert store.select(which) == [ids[name] for name in names]


def test_another_namespace_is_not_selected(file: Path) -> None:
    """A selection sees the entries of its own namespace only."""
    ours, theirs = SQLiteStore(file, namespace="ours"), SQLiteStore(file, namespace="theirs")
    put(theirs, "a")

    assert ours.select(Selection()) == []
    for store in (ours, theirs):
        store.close()


def test_what_was_learned_is_kept_per_namespace(file: Path) -> None:
    """The last state that a namespace kept comes back, from another connection too, and no other one's."""
    one, other = SQLiteStore(file, namespace="one"), SQLiteStore(file, namespace="other")
    one.keep_learned("old")
    one.keep_learned("new")
    again = SQLiteStore(file, namespace="one")

    assert (again.learned(), other.learned()) == ("new", None)
    for store in (one, other, again):
        store.close()


def test_touch_and_delete(store: SQLiteStore) -> None:
    """A use is noted, a deleted entry is gone."""
    one, two = put(store, "a"), put(store, "b")
    store.touch({one: 7.0})
    store.delete(two)

    assert [e.used_at for e in (store.get("a"),) if e] == [7.0]
    assert store.get("b") is None


def test_shrinking_takes_the_expired_first_then_the_least_used(store: SQLiteStore) -> None:
    """What has expired goes even if it was just used, then what was used longest ago, and the ids are told."""
    ids = {name: put(store, name, stored_at=float(n)) for n, name in enumerate("abcd")}
    late = put(store, "late", stored_at=50.0, expires_at=60.0)
    store.touch({ids["a"]: 99.0})
    gone = store.shrink(2, now=60.0)

    assert gone == [late, ids["b"], ids["c"]]
    assert [name for name in "abcd" if store.get(name)] == ["a", "d"]
    assert store.shrink(2, now=60.0) == []


def test_clear_takes_its_own_namespace_only(file: Path) -> None:
    """Another namespace in the same file keeps its entries, and each counts its own."""
    ours, theirs = SQLiteStore(file, namespace="ours"), SQLiteStore(file, namespace="theirs")
    put(ours, "a")
    put(ours, "b")
    put(theirs, "c")

    assert (ours.count(), theirs.count(), len(ours)) == (2, 1, 3)
    ours.clear()
    assert (ours.count(), theirs.count(), len(ours)) == (0, 1, 1)
    assert ours.get("a") is None
    assert theirs.get("c") is not None
    ours.close()
    theirs.close()


def test_an_id_is_never_used_again(store: SQLiteStore) -> None:
    """After a clear and after a delete, ids go on rising, since others may still hold the old ones."""
    before = [put(store, exact) for exact in "abc"]
    store.clear()
    again = put(store, "a")
    store.delete(again)

    assert min(again, put(store, "b")) > max(before)
    assert put(store, "c") > again


def test_a_file_keeps_entries(file: Path) -> None:
    """What was stored is there for the next process, without the first having closed anything."""
    code = (
        "import sys; from llm_costopt.cache.sqlite import SQLiteStore; from llm_costopt.cache.store import Entry\n"
        "entry = Entry(exact='a', scope='s', text='t', payload='p', answer='a', says=0, stored_at=0, expires_at=None,"
        " used_at=0)\nSQLiteStore(sys.argv[1]).put(entry)\n"
        "import os; os._exit(0)"
    )
    assert run_python(code, file).returncode == 0
    store = SQLiteStore(file)
    entry = store.get("a")

    assert entry is not None
    assert entry.payload == "p"
    store.close()


def test_two_connections_see_each_other(file: Path) -> None:
    """Each notices once that the other wrote, and never counts what it wrote itself."""
    one, two = SQLiteStore(file), SQLiteStore(file)

    assert (one.changed(), two.changed()) == (True, True)  # at first, all that the file holds is news
    assert (one.changed(), two.changed()) == (False, False)
    put(one, "a")
    assert (one.changed(), two.changed()) == (False, True)
    assert two.changed() is False
    assert two.get("a") is not None
    one.close()
    two.close()


@pytest.mark.skipif(os.name != "posix", reason="this system has other permissions")
def test_a_new_file_is_for_its_owner_alone(file: Path) -> None:
    """The file and its companions may hold private questions: nobody else may read them, whatever the umask."""
    before = os.umask(0)
    try:
        store = SQLiteStore(file)
        put(store, "a")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    store.close()

    assert modes == {"cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}


def other_version(file: Path) -> None:
    """Write a cache of a later release."""
    SQLiteStore(file).close()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def other_database(file: Path) -> None:
    """Write a database that is no cache."""
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE guests (name TEXT)")
    db.close()


def no_database(file: Path) -> None:
    """Write what is no database at all."""
    file.write_bytes(b"these are holiday notes, and many of them\n" * 200)


def damaged(file: Path) -> None:
    """Overwrite the middle of the first page of a cache."""
    store = SQLiteStore(file)
    put(store, "a")
    store.close()
    content = bytearray(file.read_bytes())
    content[100:4000] = b"\xff" * 3900
    file.write_bytes(content)


@pytest.mark.parametrize("spoil", [other_version, no_database, damaged])
def test_a_file_that_is_no_use_is_set_aside(spoil: Any, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept byte by byte under a name that the warning tells, and a new cache works in its place."""
    spoil(file)
    content = file.read_bytes()
    with caplog.at_level(logging.WARNING):
        store = SQLiteStore(file)
    put(store, "a")
    (aside,) = file.parent.glob("*.aside")

    assert aside.read_bytes() == content
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert aside.name in caplog.text
    assert len(store) == 1
    store.close()
    reopened = SQLiteStore(file)
    assert len(reopened) == 1
    reopened.close()


def test_somebody_elses_database_is_refused(file: Path) -> None:
    """A path that names another program's database is an error, and the file stays where it is."""
    other_database(file)
    content = file.read_bytes()
    with pytest.raises(ValueError, match="but not a cache"):
        SQLiteStore(file)

    assert file.read_bytes() == content
    assert list(file.parent.glob("*.aside")) == []


def test_an_empty_file_is_a_new_cache(file: Path) -> None:
    """What `mktemp` makes may be given as the path."""
    file.touch()
    store = SQLiteStore(file)
    put(store, "a")

    assert len(store) == 1
    assert list(file.parent.glob("*.aside")) == []
    store.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing/cache.db", "folder"), ("", "folder"), ("x" * 300, "cannot open the cache")],
)
def test_a_path_that_cannot_be_opened_is_refused(name: str, message: str, tmp_path: Path) -> None:
    """A missing folder, a folder and an impossible name are each a ValueError that names the path."""
    with pytest.raises(ValueError, match=message) as caught:
        SQLiteStore(tmp_path / name)

    assert (Path(name).name or tmp_path.name) in str(caught.value)


def writing(holder: sqlite3.Connection) -> None:
    """Hold a file as a program does that wants it for itself."""
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")


def reading(holder: sqlite3.Connection) -> None:
    """Hold a file as a long report does, with the journal of an older program."""
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN")
    holder.execute("SELECT * FROM entries").fetchall()


@pytest.mark.parametrize("hold", [writing, reading])
def test_a_locked_file_is_refused_and_left_alone(hold: Callable[[sqlite3.Connection], None], file: Path) -> None:
    """A file that another program holds is sound: it is not set aside, and the error says what is the matter."""
    SQLiteStore(file).close()
    holder = sqlite3.connect(file, isolation_level=None)
    hold(holder)
    with pytest.raises(ValueError, match="locked"):
        SQLiteStore(file)
    holder.close()

    assert list(file.parent.glob("*.aside")) == []
    SQLiteStore(file).close()


def test_a_closed_store_says_so(store: SQLiteStore) -> None:
    """Use after closing is an error that names the way out, and closing twice is none."""
    store.close()
    store.close()

    with pytest.raises(ValueError, match="make another one"):
        store.get("a")


STARTERS = """
import os, sys, tempfile
from llm_costopt.cache.sqlite import SQLiteStore
from llm_costopt.cache.store import Entry

for _ in range(20):
    folder = tempfile.mkdtemp(dir=sys.argv[1])
    path, (go, gone) = os.path.join(folder, "cache.db"), os.pipe()
    children = []
    for n in range(6):
        pid = os.fork()
        if not pid:
            os.close(gone)
            os.read(go, 1)  # until the parent closes its end: all start at once
            SQLiteStore(path).put(Entry(exact=str(n), scope="s", text="t", payload="p", answer="a", says=0, stored_at=0, expires_at=None, used_at=0))
            os._exit(0)
        children.append(pid)
    os.close(gone)
    os.close(go)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    assert len(SQLiteStore(path)) == 6
    assert not [name for name in os.listdir(folder) if "aside" in name]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_processes_may_start_on_a_new_file_at_once(tmp_path: Path) -> None:
    """Six workers that open the same new file at the same moment share it: none fails, none sets it aside."""
    result = run_python(STARTERS, tmp_path)

    assert (result.returncode, result.stderr) == (0, "")


SETTERS_ASIDE = (
    STARTERS.replace("children = []", "children = []; open(path, 'wb').write(b'no database' * 99)")
    .replace("assert not [name", "assert 1 == len([name")
    .replace("in name]", "in name])")
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_processes_may_set_the_same_file_aside_at_once(tmp_path: Path) -> None:
    """Six workers that find the same damaged file at the same moment set it aside once, and share the new one."""
    result = run_python(SETTERS_ASIDE, tmp_path)

    assert result.returncode == 0, result.stderr


FORKER = """
import os, sys
from llm_costopt.cache.sqlite import SQLiteStore
from llm_costopt.cache.store import Entry

def put(exact):
    store.put(Entry(exact=exact, scope="s", text="t", payload="p", answer="a", says=0, stored_at=0, expires_at=None, used_at=0))

store, memory = SQLiteStore(sys.argv[1]), SQLiteStore()
put("before")
assert store.changed() and not store.changed()
(go, gone), children = os.pipe(), []
for n in range(4):
    pid = os.fork()
    if not pid:
        os.close(gone)
        put(f"child {n}")
        os.read(go, 1)
        put(f"orphan {n}")
        os._exit(0)
    children.append(pid)
put("after")
assert store.changed()
store.close()  # the parent's end must not take the file away from its children
os.close(gone)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
assert len(memory) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_store_survives_a_fork(file: Path) -> None:
    """What parent and children store after a fork is all there, even what a child stores once the parent closed."""
    result = run_python(FORKER, file)
    store = SQLiteStore(file)
    names = {"before", "after", *(f"{who} {n}" for n in range(4) for who in ("child", "orphan"))}

    assert (result.returncode, result.stderr) == (0, "")
    assert {name for name in names if store.get(name)} == names
    assert len(store) == 10
    store.close()
