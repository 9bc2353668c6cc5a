"""Errors that a caller may want to tell apart from the built-in ones.

CostOptError
├── MissingExtraError     an optional dependency is not installed
├── BadLogError           a line of a request log cannot be read
└── BudgetExceededError   a request would cost more than a budget leaves
"""

from traceback import format_tb


class CostOptError(Exception):
    """Catch this for anything that llm-costopt itself raises."""


class MissingExtraError(CostOptError, ImportError):
    """Catch this to offer the `pip install` line that the message holds."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'llm-costopt[{extra}]'")


class BadLogError(CostOptError, ValueError):
    """Catch this to show which line of which file to mend."""

    def __init__(self, path: object, line: int | None, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if line is None else f"{path}, line {line}: {problem}")


class BudgetExceededError(CostOptError):
    """Catch this to answer without a model until the budget begins anew."""


def place_of(error: BaseException) -> str:
    """Say where *error* arose, for a log: without its message and those of its causes, which may quote a prompt."""
    return "".join(format_tb(error.__traceback__))
