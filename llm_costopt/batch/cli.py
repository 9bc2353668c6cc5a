"""`llm-costopt batch`: see, wait for, cancel and collect the jobs in a queue's file, without the program that made them."""

import json
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from llm_costopt.account import Price
from llm_costopt.batch.anthropic import AnthropicBatches
from llm_costopt.batch.backend import BatchBackend, Lane
from llm_costopt.batch.jobs import JobStore
from llm_costopt.batch.openai import OpenAIBatches
from llm_costopt.batch.records import Records
from llm_costopt.batch.stored import Job
from llm_costopt.batch.watch import Pace, Watch
from llm_costopt.batch.wire import http_library
from llm_costopt.batch.work import Worker
from llm_costopt.types import OnRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

app = typer.Typer(no_args_is_help=True)

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

_BACKENDS: Mapping[str, BatchBackend] = {backend.name: backend for backend in (OpenAIBatches(), AnthropicBatches())}

_PACE = Pace(first=5.0, most=300.0, lease=120.0, settle=60.0)

File = Annotated[Path, typer.Argument(help="The file of a BatchQueue.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Beginnings of jobs' ids; all that are not done if none.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="A Ledger, made if new: book rows there, unless a callback handler of a host does."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures for machines.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """Where the rows that come back are booked."""

    append: OnRecord
    """Keeps a record, once for each id."""
    prices: Price
    """What a row costs."""


@app.callback()
def _about() -> None:
    """See and collect the jobs of a BatchQueue; keys come from OPENAI_API_KEY and ANTHROPIC_API_KEY."""


@app.command("list")
def list_jobs(file: File, as_json: AsJson = False) -> None:
    """List all jobs, the latest first."""
    with _open(file) as store:
        jobs = store.jobs()
        if as_json:
            print(json.dumps([_figures(store, job) for job in jobs]))
            return
        table = Table("job", "model", "state", "provider says", "rows", "outcomes", "age")
        for job in jobs:
            table.add_row(*_row(store, job))
        queued, troubles = store.outcomes().get("queued", 0), store.troubles(time.time())
    console = Console()
    console.print(table)
    for trouble in troubles:
        console.print(f"a program cannot send its requests, and tries again: {trouble}", markup=False)
    if queued and not troubles:
        console.print(f"{queued} requests are queued: they are sent when a program asks them again")


@app.command()
def show(file: File, job: Annotated[str, typer.Argument(help="The beginning of a job's id.")]) -> None:
    """Print all that is known of one job, as JSON."""
    with _open(file) as store:
        (found,) = _jobs(store, [job])
        print(json.dumps(_figures(store, found), indent=2))


@app.command()
def collect(context: typer.Context, file: File, jobs: Ids = None, ledger: LedgerFile = None) -> None:
    """Look once at every job, and store what is there; a program that asks again is answered from the file."""
    with _open(file) as store, _books(context, store, ledger) as book, _worker(store) as worker:
        complaints = []
        for job in _jobs(store, jobs):
            if complaint := _look(worker, Watch(job=job.id, lane=job.lane, due=0.0)):
                complaints.append(complaint)
            else:
                print(f"{job.id[:12]}: {_told(store, job)}")
        book()
        _complain(complaints)


@app.command()
def wait(context: typer.Context, file: File, jobs: Ids = None, ledger: LedgerFile = None) -> None:
    """Wait until jobs are done, and store what comes back."""
    with (
        _open(file) as store,
        _books(context, store, ledger) as book,
        _worker(store) as worker,
        _bar() as bar,
    ):
        found = _jobs(store, jobs)
        tasks = {job.id: bar.add_task(job.id[:12], total=job.rows) for job in found}
        watches = [Watch(job=job.id, lane=job.lane, due=0.0) for job in found]
        complaints: dict[str, str] = {}
        while watches:
            for watch in watches:
                if watch.due <= time.time() and (complaint := _look(worker, watch)):
                    complaints[watch.job] = complaint
                through = store.through(watch.job)
                bar.update(tasks[watch.job], completed=through)
            book()
            watches = [watch for watch in watches if not watch.ended and watch.job not in complaints]
            if watches:
                time.sleep(max(0.0, min(1.0, min(watch.due for watch in watches) - time.time())))
        book()  # what was stored before, if there was nothing to wait for
        told = [(job.id[:12], _told(store, job)) for job in found if job.id not in complaints]
    for job_id, text in told:
        print(f"{job_id}: {text}")
    _complain(complaints.values())


@app.command()
def cancel(file: File, job: Annotated[str, typer.Argument(help="The beginning of a job's id.")]) -> None:
    """Ask the provider for the end of a job; what is done until then is paid: `collect` it."""
    with _open(file) as store, _worker(store) as worker:
        (found,) = _jobs(store, [job])
        if not worker.cancel(found.id, found.lane):
            raise ValueError(
                f"{found.id[:12]} cannot be cancelled: it is done, not made yet, or another program has it"
            )
        print(f"{found.id[:12]}: the provider was asked to cancel it")


@contextmanager
def _open(file: Path) -> "Iterator[JobStore]":
    if not file.exists():
        raise ValueError(f"there is no file {str(file)!r}: give the path of a BatchQueue")
    store = JobStore(file)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _worker(store: JobStore) -> "Iterator[Worker]":
    owner = uuid.uuid4().hex
    with http_library().Client() as client:
        try:
            yield Worker(
                store=store,
                backends=_BACKENDS,
                owner=owner,
                pace=_PACE,
                retries=1,
                client=lambda: client,
                headers=_headers,
                deliver=lambda _: None,
                clock=time.time,
            )
        finally:
            store.release(owner)


@contextmanager
def _books(context: typer.Context, store: JobStore, ledger: Path | None) -> "Iterator[Callable[[], None]]":
    """Give what books all rows that are stored and that nobody booked yet; nothing without a ledger."""
    if ledger is None:
        yield lambda: None
        return
    with context.obj(ledger) as booking:
        records = Records(booking.append, booking.prices, time.time)
        store.forgive(time.time())

        def book() -> None:
            records.tell(store, _BACKENDS)
            if records.failures:
                raise ValueError(f"{ledger} cannot be written; rows are stored, and booked when it can: collect again")

        yield book
        rows = "row" if records.told == 1 else "rows"
        unpriced = f", {records.unpriced} of unknown price" if records.unpriced else ""
        print(f"{ledger}: {records.told} {rows} booked, ${records.cost}{unpriced}")


def _headers(lane: Lane) -> Mapping[str, str]:
    name = _KEYS[lane.provider]
    key = os.environ.get(name)
    if not key:
        raise ValueError(f"set {name}: the file holds no keys")
    if lane.provider == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    more = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
    return {"authorization": f"Bearer {key}", **{h: os.environ[v] for h, v in more.items() if os.environ.get(v)}}


def _jobs(store: JobStore, wanted: list[str] | None) -> list[Job]:
    jobs = store.jobs()
    if not wanted:
        return [job for job in jobs if job.state != "done"]
    found = []
    for name in wanted:
        matching = [job for job in jobs if name and job.id.startswith(name)]
        if len(matching) != 1:
            raise ValueError(f"{name!r} is the beginning of {len(matching)} jobs' ids: `list` shows them")
        found += matching
    return found


def _look(worker: Worker, watch: Watch) -> str | None:
    """Look once at a job; return what its user has to mend, which holds up no other job."""
    try:
        worker.look(watch)
    except ValueError as problem:  # no key for its provider
        return str(problem)
    if watch.refused is None:
        return None
    said = watch.refused.body.decode(errors="replace")
    return f"the provider refused to tell of {watch.job[:12]}: HTTP {watch.refused.status}: {said}"


def _complain(complaints: "Iterable[str]") -> None:
    if said := dict.fromkeys(complaints):
        raise ValueError("; ".join(said))


def _figures(store: JobStore, job: Job) -> dict[str, Any]:
    figures = {**asdict(job), "outcomes": store.outcomes(job.id), "not_these": sorted(job.not_these)}
    return {**figures, "through": store.through(job.id)}


def _row(store: JobStore, job: Job) -> tuple[str, ...]:
    hours, minutes = divmod(int(time.time() - job.at) // 60, 60)
    outcomes = _words(store.outcomes(job.id))
    return (job.id[:12], job.lane.model, job.state, job.status or "", str(job.rows), outcomes, f"{hours}:{minutes:02}")


def _told(store: JobStore, job: Job) -> str:
    now = next(j for j in store.jobs() if j.id == job.id)
    return f"{now.state}, {_words(store.outcomes(job.id))}"


def _words(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items()))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))
