"""LangChain's own tests for caches."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from langchain_costopt.cache import SemanticCache


class TestInMemory(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> Iterator[SemanticCache]:
        """Make an empty cache in memory."""
        made = SemanticCache()
        yield made
        made.close()


class TestInFile(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[SemanticCache]:
        """Make an empty cache in a file."""
        made = SemanticCache(path=tmp_path / "cache.db")
        yield made
        made.close()


class TestAsyncInMemory(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[SemanticCache]:
        """Make an empty cache in memory."""
        made = SemanticCache()
        yield made
        made.close()


class TestAsyncInFile(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> AsyncIterator[SemanticCache]:
        """Make an empty cache in a file."""
        made = SemanticCache(path=tmp_path / "cache.db")
        yield made
        made.close()
