"""What the application knows of a call and its messages do not say: whose it is, and how long its answer holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from llm_costopt.cache.ttl import KINDS
from llm_costopt.endpoints import around_tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What `cache_scope` says of the calls inside it."""

    tenant: str = ""
    """Whose calls they are: no answer crosses from one tenant to another."""
    epoch: str = ""
    """Version of what the answers rest on, such as a knowledge base or a prompt: another one starts from nothing."""
    kind: str | None = None
    """Kind of content, one of `ttl.KINDS`; None: a rule on the request decides."""
    tags: tuple[str, ...] = ()
    """What `invalidate(tags=…)` may find the stored answers by."""


_NOTHING = Surroundings()

_surroundings: ContextVar[Surroundings] = ContextVar("llm_costopt_cache_scope", default=_NOTHING)


@contextmanager
def cache_scope(
    *, tenant: str | None = None, epoch: str | None = None, kind: str | None = None, tags: Sequence[str] = ()
) -> Iterator[None]:
    """Say of all calls inside the `with` block whose they are and what their answers depend on.

    It holds for the thread or task that enters it and for those that they start with their context, as both hosts do.
    A generator that a web framework goes on with in another context leaves it behind at its first `yield`: there it belongs
    around the calls alone. An inner block adds its tags and replaces what else it names.

    Args:
        tenant: whose calls they are; nothing is shared with other tenants.
        epoch: version of the knowledge base or prompt that the answers rest on; nothing is shared with other versions.
        kind: kind of content (`static`, `summary`, `label`, `live`, `creative`, `general`), which decides how long
            an answer stays fresh; a rule on the request decides if it is not given.
        tags: names by which `invalidate` may find the answers that are stored here.

    Raises:
        ValueError: an unknown *kind*.
        TypeError: a tenant or epoch that is no text, or *tags* that are one text.
    """
    for name, value in (("tenant", tenant), ("epoch", epoch)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} is a text, such as {name}='acme'; got {value!r}")
    if kind is not None and kind not in tuple(KINDS):
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}")
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError(f"tags is a list of texts, such as tags=['kb']; got {tags!r}")
    outer = _surroundings.get()
    inner = replace(
        outer,
        tenant=outer.tenant if tenant is None else tenant,
        epoch=outer.epoch if epoch is None else epoch,
        kind=outer.kind if kind is None else kind,
        tags=tuple(dict.fromkeys((*outer.tags, *tags))),
    )
    token, whose = _surroundings.set(inner), around_tenant.set(inner.tenant)
    try:
        yield
    finally:
        _surroundings.reset(token)
        around_tenant.reset(whose)


def surroundings() -> Surroundings:
    """Return what the innermost `cache_scope` says."""
    return _surroundings.get()
