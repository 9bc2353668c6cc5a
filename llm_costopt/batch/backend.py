"""What a provider's Batch API has to offer: one file each implements it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

from llm_costopt.batch.wire import Ask, Http, Reply
from llm_costopt.types import Usage

Outcome = Literal["succeeded", "errored", "expired", "cancelled", "missing", "rejected", "lost"]
"""What became of a row: answered; refused by the model; not done in time; cancelled; in none of the files; of a batch
that was refused as a whole; of a batch that is gone."""

UNFINISHED: Mapping[Outcome, tuple[int, str]] = {
    "expired": (504, "the batch expired before this request was done; ask again"),
    "cancelled": (409, "the batch was cancelled before this request was done; ask again"),
    "missing": (502, "the batch ended without a word on this request; ask again"),
    "lost": (502, "the provider no longer knows the batch of this request; ask again"),
}
"""HTTP status and message for a row of which the provider says nothing itself."""


NO_SENSE = (502, "the provider's answer to this request cannot be read; ask again")
"""Likewise for a row of which it says what nobody understands."""

UNREADABLE = (AttributeError, TypeError, ValueError)
"""What reading such a row raises; it must not keep the answers of all the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What requests must have in common to travel in one batch."""

    provider: str
    """The name of the backend."""
    base_url: str
    """Where the provider's API begins."""
    endpoint: str
    """What the provider calls the path of a row."""
    model: str
    """The model that is asked."""
    account: str
    """A hash of the key and of the headers that decide who pays and what is on; the key itself is never kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request as it is sent."""

    id: str
    """Its `custom_id`, new for every attempt."""
    body: bytes
    """The JSON that the SDK wrote, on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one row."""

    id: str
    """Its `custom_id`."""
    reply: Reply
    """The response for whoever asked."""
    outcome: Outcome
    """`succeeded`, or why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a provider took no row of a batch."""

    message: str
    """In the provider's words."""
    too_much: bool = False
    """Whether it would fit later, when less is queued."""
    lines: Mapping[int, str] = field(default_factory=dict)
    """What was wrong with which line, counted from 1; empty if the provider did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A batch as the provider tells of it."""

    id: str
    """The provider's name for it."""
    status: str
    """In the provider's word, which may be any."""
    ended: bool
    """Whether nothing more will happen; an unknown status is no end."""
    rest: Outcome = "missing"
    """What became of rows that no result speaks of, once it ended."""
    files: tuple[str, ...] = ()
    """Where results are."""
    done: int | None = None
    """Rows that are through, whatever became of them; None if the provider does not say."""
    failure: Failure | None = None
    """If it was refused as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A batch that may or may not have been created."""

    id: str
    """Ours."""
    rows: int
    """How many requests it holds."""
    at: float
    """When it was about to be created, or nobody heard that it was, in seconds since the epoch."""
    not_these: frozenset[str]
    """The provider's names of batches that are surely others."""


class BatchBackend(Protocol):
    """One provider's batches. Every call may raise RefusedError or ConnectionError."""

    name: str
    """The provider, as price lists call it."""
    max_rows: int
    """Most requests of a batch."""
    max_bytes: int
    """Most bytes of a batch, with some room left."""
    lasts: float
    """Seconds after which a batch expires."""
    marks: bool
    """Whether a batch bears our name for it, so that one that is found is surely ours."""

    def lane(self, ask: Ask, body: Mapping[str, Any]) -> Lane | None:
        """Say where *ask* belongs; None if it is no request for this provider's batches."""

    def write(self, rows: Iterator[Row], lane: Lane, file: IO[bytes]) -> None:
        """Write *rows* in the form in which they are sent."""

    def upload(self, http: Http, lane: Lane, job: str, file: IO[bytes]) -> str:
        """Send ahead what costs nothing yet; returns the provider's name for it, or an empty string."""

    def create(self, http: Http, lane: Lane, job: str, uploaded: str, file: IO[bytes]) -> Remote:
        """Start the batch."""

    def find(self, http: Http, lane: Lane, intent: Intent) -> Remote | None:
        """Look for a batch that was perhaps created."""

    def look(self, http: Http, lane: Lane, remote: str) -> Remote:
        """Ask how a batch is."""

    def results(self, http: Http, lane: Lane, remote: Remote) -> Iterator[Result]:
        """Read all results there are, in any order."""

    def cancel(self, http: Http, lane: Lane, remote: str) -> None:
        """Ask for the end of a batch; what is done until then is paid and can be read."""

    def discard(self, http: Http, lane: Lane, uploaded: str) -> None:
        """Delete what was uploaded."""

    def error(self, status: int, message: str) -> Reply:
        """Say *message* as the provider says its errors, so that its SDK raises what it always raises."""

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        """Read the tokens of one answer; None if it does not tell them."""
