"""What a job store tells: rows and jobs as plain records, and how a row is called at the provider."""

from dataclasses import dataclass
from typing import Literal

from llm_costopt.batch.backend import Lane, Outcome
from llm_costopt.batch.wire import Reply

JobState = Literal["uploading", "creating", "running", "done"]
"""Nothing that costs has been asked for; the batch is being made, or was perhaps; it is at work; all is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request that somebody waits for."""

    key: bytes
    """A hash of what is asked."""
    lane: Lane
    """How it travels."""
    body: bytes
    """The JSON, on one line."""
    endpoint: str | None
    """The endpoint of the application that it serves; None if nobody said."""
    tenant: str | None
    """The application's customer that it serves; None if nobody said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row is."""

    row: int
    """Its number."""
    state: Literal["queued", "sent", "answered"]
    """Not sent yet, in a job, or answered."""
    job: str | None
    """The job that it was last sent in."""
    size: int
    """Bytes of its body; 0 if it is no longer needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One batch, ours or perhaps ours."""

    id: str
    """Our name for it."""
    lane: Lane
    """How its rows travel."""
    state: JobState
    """How far it is."""
    rows: int
    """Requests that were sent in it."""
    at: float
    """When it was made, or nobody heard that it was, in seconds since the epoch."""
    uploaded: str
    """The provider's name of the input file."""
    remote: str | None
    """The provider's name for it."""
    status: str | None
    """What the provider last said."""
    guessed: bool
    """Whether *remote* was found by count and time, and no row has proved it."""
    not_these: frozenset[str]
    """Batches of the provider's that it is not."""
    note: str | None
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A row with its reply."""

    row: int
    """Its number."""
    reply: Reply
    """For whoever asked."""
    outcome: Outcome
    """What became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An answered row of which nobody has been told yet."""

    row: int
    """Its number."""
    id: str
    """Unique among all rows and attempts."""
    lane: Lane
    """How it travelled."""
    outcome: Outcome
    """What became of it."""
    body: bytes
    """The reply."""
    endpoint: str | None
    """Of the latest who asked; None if nobody said, as of rows that an earlier release wrote."""
    tenant: str | None
    """Likewise."""


def row_name(job: str, row: int, attempt: int, *, whole: bool = False) -> str:
    """Name a row of a job, as its `custom_id` or, *whole*, unique for ever."""
    return f"{job if whole else job[:12]}-{row}-{attempt}"


def row_number(job: str, name: str) -> int | None:
    """Read the row's number from a `custom_id`; None if it is not one of *job*."""
    head, _, rest = name.partition("-")
    number = rest.partition("-")[0]
    return int(number) if head == job[:12] and number.isdecimal() else None
