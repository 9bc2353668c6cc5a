"""Which endpoint a call serves: what the application says around it."""

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from llm_costopt import cache_scope, endpoint
from llm_costopt.endpoints import current_endpoint, served


def test_the_innermost_block_counts() -> None:
    """Outside of any block there is no endpoint, and an inner block hides the outer one until it ends."""
    seen = [current_endpoint()]
    with endpoint("POST /ask"):
        seen.append(current_endpoint())
        with endpoint("GET /sum"):
            seen.append(current_endpoint())
        seen.append(current_endpoint())
    seen.append(current_endpoint())

    assert seen == [None, "POST /ask", "GET /sum", "POST /ask", None]


def test_a_block_ends_with_an_error() -> None:
    """What fails inside does not leave its endpoint to the next call."""
    with pytest.raises(RuntimeError), endpoint("/ask"):
        raise RuntimeError

    assert current_endpoint() is None


def test_tasks_and_threads_have_their_own() -> None:
    """Requests that are served at once do not mix, and a thread that is started with the context knows it."""
    found: dict[str, str | None] = {}

    async def serve(name: str) -> None:
        with endpoint(name):
            await asyncio.sleep(0)
            found[name] = await asyncio.to_thread(current_endpoint)

    async def both() -> None:
        await asyncio.gather(serve("/a"), serve("/b"))

    asyncio.run(both())
    with endpoint("/c"):
        inside = copy_context()
        threads = [
            threading.Thread(target=lambda: found.update(bare=current_endpoint())),
            threading.Thread(target=lambda: found.update(copied=inside.run(current_endpoint))),
        ]
        for thread in threads:
            thread.start()
            thread.join()

    assert found == {"/a": "/a", "/b": "/b", "bare": None, "copied": "/c"}


@pytest.mark.parametrize(("name", "error"), [(7, TypeError), (None, TypeError), ("", ValueError)])
def test_a_name_is_a_text(name: Any, error: type[Exception]) -> None:
    """What could not be shown as a name is refused where it is said."""
    with pytest.raises(error, match="an endpoint's name is"), endpoint(name):
        pass


def test_what_is_said_with_the_call_comes_first() -> None:
    """The host's own way beats what stands around, and what is not a text becomes one; an empty one says nothing."""
    with endpoint("/around"):
        assert served({}) == {"endpoint": "/around", "tenant": None}
        with cache_scope(tenant="acme"):
            assert served({}) == {"endpoint": "/around", "tenant": "acme"}
            assert served({"endpoint": "/own", "tenant": 7}) == {"endpoint": "/own", "tenant": "7"}
            assert served({"endpoint": "", "tenant": None}) == {"endpoint": "/around", "tenant": "acme"}
        assert served({}) == {"endpoint": "/around", "tenant": None}
