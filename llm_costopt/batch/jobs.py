"""Requests and batches in an SQLite file: what was asked, what was sent where, and what came back.

A row is written before it is sent and its reply as soon as it is seen, so a program that dies at any instant finds
everything again. Keys of accounts are never written; prompts are, until they are answered.
"""

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict
from typing import Any

from llm_costopt.batch import tables
from llm_costopt.batch.backend import Lane, Result
from llm_costopt.batch.stored import Answered, Job, Place, Settled, Wanted, row_name, row_number
from llm_costopt.batch.wire import Reply
from llm_costopt.database import Database

_PATIENCE = 30.0
"""Seconds to wait for another process that is writing."""

_CHUNK = 500
"""Rows that are read or written at once: some megabytes."""

_KEPT = 30 * 86400.0
"""Seconds after which a row is forgotten; providers keep results no longer either (29 or 30 days)."""

_SHOWN = 86400.0
"""Seconds for which the reply of a row that will not be given out again stays."""

_TELLING = 60.0
"""Seconds after which a program that took a chunk of rows to tell of them has died over it."""

# A row that this run has not taken yet. One that was given out before belongs to a program that came to no good end,
# if it was given out before this run began; to one that still runs, if after. What only says "ask again" is sent anew.
_FREE = """
SELECT id, state, job, length(body) AS size FROM rows
WHERE key = :key AND NOT spent AND coalesce(outcome, '') NOT IN ('expired', 'cancelled', 'missing', 'lost')
  AND (delivered IS NULL OR (delivered < :began AND delivered > :since))
  AND NOT EXISTS (SELECT 1 FROM claims WHERE run = :run AND row = rows.id)
ORDER BY id LIMIT :most
"""


class JobStore:
    """Keep rows and jobs in the file *path*, made for its owner's eyes only if it is new; in memory if it is None.

    Any number of threads and processes may share the file.

    Raises:
        ValueError: the file cannot be opened, is no job store, or is one of another version.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._db = Database(
            path,
            what="job store",
            schema=tables.SCHEMA,
            owner=tables.OURS,
            version=tables.VERSION,
            upgrades=tables.UPGRADES,
            patience=_PATIENCE,
        )

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._db.close()

    # Rows

    def claim(self, wanted: Sequence[Wanted], *, run: str, began: float, resume: float, now: float) -> list[Place]:
        """Give every request a row of its own: one that is there and free, or a new one."""
        by_key: dict[bytes, list[int]] = defaultdict(list)
        for n, want in enumerate(wanted):
            by_key[want.key].append(n)
        texts = {lane: _text(lane) for lane in {want.lane for want in wanted}}
        places: dict[int, Place] = {}
        with self._db.transaction("IMMEDIATE") as db:
            for key in _known(db, list(by_key)):
                asked = by_key[key]
                terms = {"key": key, "began": began, "since": now - resume, "run": run, "most": len(asked)}
                for n, row in zip(asked, db.execute(_FREE, terms).fetchall(), strict=False):
                    places[n] = _place(row)
            db.executemany("INSERT INTO claims (run, row) VALUES (?, ?)", [(run, p.row) for p in places.values()])
            moved = [(texts[wanted[n].lane], p.row) for n, p in places.items() if p.state == "queued"]
            db.executemany("UPDATE rows SET lane = ? WHERE id = ?", moved)
            serves = [(wanted[n].endpoint, wanted[n].tenant, p.row) for n, p in places.items()]
            db.executemany("UPDATE rows SET endpoint = ?, tenant = ? WHERE id = ?", serves)
            last = db.execute("SELECT coalesce(max(id), 0) FROM rows").fetchone()[0]
            new = [n for n in range(len(wanted)) if n not in places]
            for row, n in enumerate(new, last + 1):
                places[n] = Place(row=row, state="queued", job=None, size=len(wanted[n].body))
            fresh = ((places[n].row, wanted[n]) for n in new)
            db.executemany(
                "INSERT INTO rows (id, key, lane, body, endpoint, tenant, asked, state) VALUES (?, ?, ?, ?, ?, ?, ?, 'queued')",
                ((row, w.key, texts[w.lane], w.body, w.endpoint, w.tenant, now) for row, w in fresh),
            )
            db.execute("INSERT INTO claims (run, row) SELECT ?, id FROM rows WHERE id > ?", [run, last])
        return [places[n] for n in range(len(wanted))]

    def where(self, rows: Collection[int]) -> Iterator[Place]:
        """Say where *rows* are now; those that are gone are left out."""
        query = "SELECT id, state, job, length(body) AS size FROM rows WHERE id IN ({})"
        return (_place(row) for row in self._each(query, rows))

    def replies(self, rows: Collection[int]) -> Iterator[Answered]:
        """Read the replies of *rows* as far as they are there."""
        query = "SELECT id, status, outcome, reply FROM rows WHERE state = 'answered' AND id IN ({})"
        for row in self._each(query, rows):
            reply = Reply(status=row["status"], body=row["reply"] or b"")
            yield Answered(row=row["id"], reply=reply, outcome=row["outcome"])

    def deliver(self, rows: Collection[int], *, now: float) -> None:
        """Note that whoever asked has the reply. An error is not given out twice: asked again, it is sent again."""
        with self._db.transaction("IMMEDIATE") as db:
            db.executemany(
                "UPDATE rows SET delivered = ?, spent = outcome != 'succeeded' WHERE id = ?",
                ((now, row) for row in rows),
            )

    def drop(self, rows: Iterable[int], *, run: str) -> None:
        """Forget rows that were not sent and that no other run asked for."""
        with self._db.transaction("IMMEDIATE") as db:
            mine = [(row, run) for row in rows]
            db.executemany(
                "DELETE FROM rows WHERE id = ? AND state = 'queued' AND NOT EXISTS "
                "(SELECT 1 FROM claims WHERE row = rows.id AND run != ?)",
                mine,
            )
            db.executemany("DELETE FROM claims WHERE row = ? AND run = ?", mine)

    def unclaim(self, rows: Iterable[int], *, run: str) -> None:
        """Leave rows that nobody was given to whoever asks next."""
        with self._db.transaction("IMMEDIATE") as db:
            db.executemany("DELETE FROM claims WHERE row = ? AND run = ?", ((row, run) for row in rows))

    def live(self, run: str, *, until: float) -> None:
        """Note that *run* gives its next sign of life before *until*."""
        self._db.run(
            "INSERT INTO runs (id, until) VALUES (?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
            run, until,
        )  # fmt: skip

    def tell_trouble(self, run: str, trouble: str | None) -> None:
        """Note what keeps *run* from sending its rows; None if nothing does any more."""
        self._db.run("UPDATE runs SET trouble = ? WHERE id = ?", trouble, run)

    def troubles(self, now: float) -> list[str]:
        """List what keeps programs that live from sending their rows."""
        query = "SELECT DISTINCT trouble FROM runs WHERE trouble IS NOT NULL AND until > ? ORDER BY trouble"
        return [row["trouble"] for row in self._db.run(query, now)]

    def is_wanted(self, job: str, now: float) -> bool:
        """Say whether a program that lives waits for a row that *job* has not answered."""
        found = self._db.run(
            "SELECT 1 FROM rows, runs WHERE rows.job = ? AND rows.state = 'sent' AND runs.until > ? "
            "AND EXISTS (SELECT 1 FROM claims WHERE run = runs.id AND row = rows.id) LIMIT 1",
            job, now,
        )  # fmt: skip
        return bool(found)

    def spend(self, run: str) -> None:
        """Note that a program came to its end: what it was given is not given out again."""
        with self._db.transaction("IMMEDIATE") as db:
            db.execute(
                "UPDATE rows SET spent = 1 WHERE delivered IS NOT NULL AND id IN (SELECT row FROM claims WHERE run = ?)",
                [run],
            )
            db.execute("DELETE FROM claims WHERE run = ?", [run])
            db.execute("DELETE FROM runs WHERE id = ?", [run])

    def tidy(self, now: float) -> None:
        """Delete what nobody can ask for any more, and tell again of what was not told to the end."""
        self.forgive(now)
        with self._db.transaction("IMMEDIATE") as db:
            db.execute("UPDATE rows SET reply = NULL WHERE spent AND delivered < ?", [now - _SHOWN])
            db.execute("DELETE FROM rows WHERE asked < ?", [now - _KEPT])
            db.execute("DELETE FROM jobs WHERE at < ?", [now - _KEPT])
            db.execute("DELETE FROM runs WHERE until < ?", [now - _KEPT])
            db.execute("DELETE FROM claims WHERE row NOT IN (SELECT id FROM rows WHERE NOT spent)")

    # Jobs

    def open_job(self, job: str, lane: Lane, rows: Sequence[int], *, owner: str, now: float, until: float) -> int:
        """Put *rows* that are still queued into a new job; returns how many. Nothing is left behind if there is none."""
        with self._db.transaction("IMMEDIATE") as db:
            db.executemany(
                "UPDATE rows SET job = ?, state = 'sent', attempts = attempts + 1 WHERE id = ? AND state = 'queued'",
                ((job, row) for row in rows),
            )
            taken = int(db.execute("SELECT count(*) FROM rows WHERE job = ?", [job]).fetchone()[0])
            if taken:
                db.execute(
                    "INSERT INTO jobs (id, lane, state, rows, at, owner, leased) VALUES (?, ?, 'uploading', ?, ?, ?, ?)",
                    [job, _text(lane), taken, now, owner, until],
                )
        return taken

    def bodies(self, job: str) -> Iterator[tuple[int, str, bytes]]:
        """Read the job's rows in order: number, the name for this attempt, body."""
        for row in self._through("SELECT id, attempts, body FROM rows WHERE job = ? AND state = 'sent'", job):
            yield row["id"], row_name(job, row["id"], row["attempts"]), row["body"]

    def lease(self, job: str, *, owner: str, now: float, until: float) -> Job | None:
        """Take or renew the right to work on *job*; None if another owner has it, or if it is done."""
        found = self._db.run(
            "UPDATE jobs SET owner = ?, leased = ? WHERE id = ? AND state != 'done' AND (owner = ? OR leased < ?) "
            "RETURNING *",
            owner, until, job, owner, now,
        )  # fmt: skip
        return _job(found[0]) if found else None

    def is_done(self, job: str) -> bool:
        """Say whether nothing more comes of *job*, or nobody knows it any more."""
        return not self._db.run("SELECT 1 FROM jobs WHERE id = ? AND state != 'done'", job)

    def renew(self, owner: str, until: float) -> None:
        """Keep the right to work on all jobs that *owner* has."""
        self._db.run("UPDATE jobs SET leased = ? WHERE owner = ? AND state != 'done'", until, owner)

    def release(self, owner: str) -> None:
        """Leave all jobs to whoever comes next."""
        self._db.run("UPDATE jobs SET owner = NULL, leased = 0 WHERE owner = ?", owner)

    def advance(self, job: str, *, owner: str, **columns: Any) -> bool:
        """Write *columns* of a job if *owner* still has it; says whether it has."""
        names = ", ".join(f"{name} = ?" for name in columns)
        found = self._db.run(
            f"UPDATE jobs SET {names} WHERE id = ? AND owner = ? RETURNING id",  # noqa: S608 - names of our own
            *columns.values(), job, owner,
        )  # fmt: skip
        return bool(found)

    def sync(self) -> None:
        """Make what was written survive a power cut, too."""
        self._db.run("PRAGMA wal_checkpoint(PASSIVE)")

    def answer(self, job: str, results: Iterable[Result], *, retries: int) -> list[Answered]:
        """Store what became of rows of *job*; those worth another try are queued again and left out of what returns.

        What is stored already, is of an earlier attempt or of no row of the job changes nothing.
        """
        named: dict[str, Result] = {}
        for result in results:
            named.setdefault(result.id, result)
        ids = [number for name in named if (number := row_number(job, name)) is not None]
        query = "SELECT id, attempts FROM rows WHERE job = ? AND state = 'sent' AND id = ?"
        done, again = [], []
        with self._db.transaction("IMMEDIATE") as db:
            for row in ids:
                found = db.execute(query, [job, row]).fetchone()
                told = found and named.get(row_name(job, row, found["attempts"]))
                if not told:
                    continue
                if _passing(told) and found["attempts"] <= retries:
                    again.append((row,))
                else:
                    done.append(Answered(row=row, reply=told.reply, outcome=told.outcome))
            db.executemany("UPDATE rows SET state = 'queued', job = NULL WHERE id = ?", again)
            db.executemany(
                "UPDATE rows SET state = 'answered', body = NULL, status = ?, outcome = ?, reply = ? WHERE id = ?",
                ((a.reply.status, a.outcome, a.reply.body, a.row) for a in done),
            )
        return done

    def open_rows(self, job: str) -> list[str]:
        """List the names of the rows that *job* has not answered, in the order in which they were sent."""
        query = "SELECT id, attempts FROM rows WHERE job = ? AND state = 'sent'"
        return [row_name(job, row["id"], row["attempts"]) for row in self._through(query, job)]

    def reopen(self, job: str) -> None:
        """Queue the unanswered rows of *job* again as if they had never been sent, and forget the job."""
        with self._db.transaction("IMMEDIATE") as db:
            db.execute(
                "UPDATE rows SET state = 'queued', job = NULL, attempts = attempts - 1 WHERE job = ? AND state = 'sent'",
                [job],
            )
            db.execute("DELETE FROM jobs WHERE id = ? AND NOT EXISTS (SELECT 1 FROM rows WHERE job = ?)", [job, job])
            db.execute("UPDATE jobs SET state = 'done' WHERE id = ?", [job])

    def taken(self) -> frozenset[str]:
        """List the provider's names of all batches that are known to be of some job."""
        return frozenset(row["remote"] for row in self._db.run("SELECT remote FROM jobs WHERE remote IS NOT NULL"))

    # Records

    def unrecorded(self, now: float) -> list[Settled]:
        """Take some answered rows of which nobody was told: nobody else is given them until `record` or `forgive`."""
        query = (
            "SELECT id, job, attempts, lane, outcome, reply, endpoint, tenant FROM rows "
            "WHERE state = 'answered' AND NOT recorded LIMIT ?"
        )
        with self._db.transaction("IMMEDIATE") as db:
            rows = db.execute(query, [_CHUNK]).fetchall()
            db.executemany("UPDATE rows SET recorded = ? WHERE id = ?", ((-int(now), row["id"]) for row in rows))
        return [
            Settled(
                row=row["id"],
                id=row_name(row["job"], row["id"], row["attempts"], whole=True),
                lane=_lane(row["lane"]),
                outcome=row["outcome"],
                body=row["reply"] or b"",
                endpoint=row["endpoint"],
                tenant=row["tenant"],
            )
            for row in rows
        ]

    def record(self, rows: Mapping[int, bool]) -> None:
        """Note of which *rows* whoever wants to know has been told; the others are given out again."""
        with self._db.transaction("IMMEDIATE") as db:
            db.executemany("UPDATE rows SET recorded = ? WHERE id = ?", ((told, row) for row, told in rows.items()))

    def forgive(self, now: float) -> None:
        """Give out again the rows of which a program that died began to tell: nobody knows how far it came."""
        self._db.run("UPDATE rows SET recorded = 0 WHERE recorded < 0 AND recorded > ?", _TELLING - now)

    # Figures

    def jobs(self) -> list[Job]:
        """List all jobs, the latest first."""
        return [_job(row) for row in self._db.run("SELECT * FROM jobs ORDER BY at DESC, id")]

    def outcomes(self, job: str | None = None) -> dict[str, int]:
        """Count rows by outcome; `queued` and `sent` are those without one."""
        found = self._db.run(
            "SELECT coalesce(outcome, state) AS what, count(*) AS n FROM rows WHERE ? IS NULL OR job = ? GROUP BY what",
            job, job,
        )  # fmt: skip
        return {row["what"]: row["n"] for row in found}

    def through(self, job: str) -> int:
        """Count the rows of *job* that are answered, or that the provider says are."""
        counts = self._db.run(
            "SELECT max((SELECT coalesce(through, 0) FROM jobs WHERE id = ?), count(*)) AS n "
            "FROM rows WHERE job = ? AND state = 'answered'",
            job, job,
        )  # fmt: skip
        return counts[0]["n"] or 0

    def oldest(self, state: str | None = None) -> float | None:
        """Say when the oldest unanswered row was asked for, or of those in *state*."""
        query = "SELECT min(asked) AS at FROM rows WHERE state != 'answered' AND (? IS NULL OR state = ?)"
        return self._db.run(query, state, state)[0]["at"]  # type: ignore[no-any-return]

    def _each(self, query: str, ids: Collection[int]) -> Iterator[Any]:
        numbers = list(ids)
        for n in range(0, len(numbers), _CHUNK):
            some = numbers[n : n + _CHUNK]
            yield from self._db.run(query.format(_marks(some)), *some)

    def _through(self, query: str, job: str) -> Iterator[Any]:
        last = 0
        while some := self._db.run(f"{query} AND id > ? ORDER BY id LIMIT {_CHUNK}", job, last):
            yield from some
            last = some[-1]["id"]


def _known(db: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[bytes]:
    """Pick those of *keys* under which there are rows: few, as a rule."""
    for n in range(0, len(keys), _CHUNK):
        some = keys[n : n + _CHUNK]
        query = f"SELECT DISTINCT key FROM rows WHERE NOT spent AND key IN ({_marks(some)})"  # noqa: S608 - question marks
        yield from [row["key"] for row in db.execute(query, some).fetchall()]


def _marks(values: Sized) -> str:
    return ", ".join("?" * len(values))


def _passing(result: Result) -> bool:
    """Say whether the same request may well succeed another time."""
    worth = result.reply.status in {408, 429} or result.reply.status >= 500
    return worth and result.outcome in {"errored", "expired", "missing"}


def _place(row: Mapping[str, Any]) -> Place:
    return Place(row=row["id"], state=row["state"], job=row["job"], size=row["size"] or 0)


def _job(row: Mapping[str, Any]) -> Job:
    same = ("id", "state", "rows", "at", "uploaded", "remote", "status", "note")
    return Job(
        lane=_lane(row["lane"]),
        guessed=bool(row["guessed"]),
        not_these=frozenset(json.loads(row["not_these"])),
        **{name: row[name] for name in same},
    )


def _text(lane: Lane) -> str:
    return json.dumps(asdict(lane))


def _lane(text: str) -> Lane:
    return Lane(**json.loads(text))
