"""The cache's part of the command line: `llm-costopt cache`."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from llm_costopt.cache.records import Checked, checked_of
from llm_costopt.presets import CACHE


def cache(
    store: Annotated[str, typer.Argument(help="The file of a `SemanticCache(path=…)`, or the URL of its Redis.")],
    namespace: Annotated[str, typer.Option(help="Its namespace.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Show what a cache served, or would have served, and how often that was wrong; noted once a minute, and when a program ends."""
    entries, counts = _read(store, namespace)
    figures = _figures(entries, counts)
    if as_json:
        print(json.dumps(figures))
    else:
        _show(store, figures, checked_of(counts))


def _read(store: str, namespace: str) -> tuple[int, dict[str, int]]:
    if "://" in store:
        from llm_costopt.cache.redis import RedisStore  # first, since it says which extra it needs

        # isort: split
        from redis.exceptions import RedisError

        try:
            shared = RedisStore(store, namespace=namespace, embedder="", timeout=5)
            return shared.count(), shared.counts()
        except RedisError as problem:
            # By its type alone where it may quote a URL with a password.
            raise ValueError(
                f"the Redis cannot be read ({type(problem).__name__}): give the url= that `SemanticCache` was given, and "
                "look whether it runs and this machine may connect"
            ) from problem
    from llm_costopt.cache.sqlite import counts_of, look_into

    db = look_into(store)
    try:
        [(entries,)] = db.run("SELECT count(*) FROM entries WHERE namespace = ?", namespace)
        return entries, counts_of(db, namespace)
    finally:
        db.close()


def _figures(entries: int, counts: dict[str, int]) -> dict[str, Any]:
    names = ("hits_exact", "hits_semantic", "would_exact", "would_semantic", "misses", "compared", "agreed")
    figures: dict[str, Any] = {"entries": entries, "since": counts.get("since"), **{n: counts.get(n, 0) for n in names}}
    lookups = figures["lookups"] = figures["hits_exact"] + figures["hits_semantic"] + figures["misses"]
    wrong, by_meaning = checked_of(counts).wrong, figures["hits_semantic"] + figures["would_semantic"]
    figures["wrong_of_semantic"] = wrong
    figures["wrong_of_requests"] = None if wrong is None else tuple(part * by_meaning / lookups for part in wrong)
    return figures


def _show(store: str, figures: dict[str, Any], checked: Checked) -> None:
    console, lookups = Console(), figures["lookups"]
    since = figures["since"] and f", counted since {datetime.fromtimestamp(figures['since'], UTC):%Y-%m-%d %H:%M} UTC"
    console.print(f"{store}: {figures['entries']} entries{since or '; nothing was counted yet'}", highlight=False)
    if not lookups:
        return
    table = Table("", "requests", "share")
    for name, label in (
        ("lookups", "looked up"),
        ("hits_exact", "answered from store: the very same request"),
        ("hits_semantic", "answered from store: in other words"),
        ("would_exact", "only observed: the very same request"),
        ("would_semantic", "only observed: in other words"),
        ("compared", "in other words and compared with the model"),
    ):
        table.add_row(label, f"{figures[name]:,}", f"{100 * figures[name] / lookups:.1f} %")
    console.print(table)
    if figures["wrong_of_requests"] is None:
        console.print("No answer was compared yet, so that nobody knows how many are wrong.")
        return
    console.print(
        f"The model said the same {checked.agreed:,} times of {checked.compared:,}. Wrong are {_interval(checked.wrong)} of the"
        f" answers in other words, which is {_interval(figures['wrong_of_requests'])} of all requests.",
        highlight=False,
    )
    if checked.visible < checked.compared:
        console.print(
            f"Some answers are free text, where other words often say the same: {checked.visible:,.0f} were expected to be"
            " seen to agree had all been right, and the shares are in proportion to that.",
            highlight=False,
        )
    console.print(_verdict(figures["wrong_of_requests"]), highlight=False)


def _verdict(wrong: tuple[float, float, float]) -> str:
    """Say which presets the interval leaves open."""
    allowed = "The presets allow: " + ", ".join(f"{name} {100 * o['max_error']:g} %" for name, o in CACHE.items())
    holds = [name for name, options in CACHE.items() if wrong[2] <= options["max_error"]]
    if not holds:
        return f"{allowed}. The interval is within none of them yet: compare more, or be more careful."
    return f"{allowed}. The interval is within what is allowed by {' and '.join(holds)}."


def _interval(shares: tuple[float, float, float] | None) -> str:
    share, low, high = (100 * part for part in shares or (0, 0, 1))
    return f"{share:.2f} % ({low:.2f} to {high:.2f} %)"
