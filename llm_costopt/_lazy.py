"""Import a package's public names when they are first used, so that importing the package costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from llm_costopt.errors import MissingExtraError


def attach(package: str, home: Mapping[str, str], *, needs: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Make a module's `__getattr__` from the module that each name is defined in.

    *needs* maps a top-level module that may be missing to the extra that brings it.
    """

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(home[name]), name)
        except ModuleNotFoundError as missing:
            extra = (needs or {}).get((missing.name or "").partition(".")[0])
            if extra is None:
                raise
            raise MissingExtraError(f"{package}.{name}", extra) from missing

    return get
