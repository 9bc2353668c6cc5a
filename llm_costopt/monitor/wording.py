"""Figures as people read them, in reports and in a terminal."""

from datetime import UTC, datetime
from decimal import Decimal

from llm_costopt.monitor.intervals import Estimate


def money(usd: Decimal | float) -> str:
    """Write US dollars: `$1,234`, `$12.30`, `$0.0123`, `$0`."""
    amount = abs(float(usd))
    if not amount:
        return "$0"
    if amount < 1e-7:
        return "<$0.0000001"
    decimals = 0 if amount >= 1000 else 2 if amount >= 0.1 else 2 - int(f"{amount:.1e}".partition("e")[2])
    return f"{'−' if usd < 0 else ''}${amount:,.{decimals}f}"


def count(number: float) -> str:
    """Write a whole number: `12,345`."""
    return f"{number:,.0f}"


def share(value: float | None) -> str:
    """Write a share: `12.3 %`; `unknown` if None."""
    return "unknown" if value is None else f"{100 * value:.1f} %"


def between(of: Estimate) -> str:
    """Write a share with its interval: `12.3 % (11.0 to 13.5 %)`."""
    return f"{share(of.value)} ({100 * of.low:.1f} to {share(of.high)})"


def seconds(value: float | None) -> str:
    """Write a duration: `0.4 ms`, `38 ms`, `1.2 s`; `unknown` if None."""
    if value is None:
        return "unknown"
    if value >= 1:
        return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"
    return f"{1000 * value:.0f} ms" if value >= 0.01 else f"{1000 * value:.2g} ms"


def moment(at: float, pattern: str = "%-d %B %Y, %H:%M") -> str:
    """Write a moment, in seconds since the epoch, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime(pattern.replace("%-d", str(datetime.fromtimestamp(at, UTC).day)))


def plain(text: str | None, longest: int = 40) -> str:
    """Make a name that others chose fit to be shown: on one line, printable, and not too long."""
    if text is None:
        return "(none named)"
    shown = "".join(c if c.isprintable() else "�" for c in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
