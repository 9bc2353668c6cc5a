"""What tests of several folders share."""

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Run one Redis with search for all tests: keep to a namespace of your own in it, and leave it running."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Run a Redis with search for one test, which may break it."""
    with RedisServer() as server:
        yield server
