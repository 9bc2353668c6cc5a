"""A model that behaves as another one in all ways, but whose calls go elsewhere.

How a model prepares its tools, adds its system prompt, asks for a structure or parses a reply is its own business and
differs from provider to provider. A wrapper that did this itself would change the requests; a view leaves it to the
model, and only diverts the eight endpoints in which all of it ends.
"""

from collections.abc import Callable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, cast

from llama_index.core.llms import LLM

ENDPOINTS = (
    "chat", "achat", "stream_chat", "astream_chat", "complete", "acomplete", "stream_complete", "astream_complete",
)  # fmt: skip

_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def view(model: LLM, outlet: Any) -> LLM:
    """Return *model* with its endpoints diverted to those of *outlet*; it shares all of its state."""
    seen = object.__new__(_class_of(type(model)))
    for name in _STATE:
        object.__setattr__(seen, name, getattr(model, name))
    object.__setattr__(seen, "costopt_outlet", outlet)
    return seen


@lru_cache(maxsize=64)
def _class_of(cls: type[LLM]) -> type[LLM]:
    diverted: dict[str, Any] = {name: _diverted(name, getattr(LLM, name)) for name in ENDPOINTS}
    about = {"__slots__": ("costopt_outlet",), "__module__": cls.__module__, "__doc__": cls.__doc__}
    made: Any = type(cls)  # pydantic's, which a class statement would call as well
    return cast("type[LLM]", made(cls.__name__, (cls,), {**diverted, **about}))


def _diverted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.costopt_outlet, name)(*args, **kwargs)

    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.costopt_outlet, name)(*args, **kwargs)

    method = acall if iscoroutinefunction(original) else call
    method.__name__ = method.__qualname__ = name
    return method
