"""The rules of the house that a machine can hold."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("llm_costopt", "langchain_costopt", "llamaindex_costopt")
FEATURES = ("cache", "router", "batch", "monitor")
SHARED = (
    "types",
    "account",
    "errors",
    "flow",
    "faults",
    "database",
    "recent",
    "reported",
    "endpoints",
    "switch",
    "presets",
    "observed",
)

HEAVY = (
    "numpy",
    "wordllama",
    "genai_prices",
    "jsonschema",
    "redis",
    "redisvl",
    "faiss",
    "qdrant_client",
    "httpx",
    "httpx2",
    "langchain_openai",
    "langchain_core.language_models",
    "llama_index",
)


def _root(package: str) -> Path:
    return Path(str(importlib.import_module(package).__file__)).parent


def _files(*packages: str) -> Iterator[tuple[str, Path, ast.Module]]:
    for package in packages:
        for path in sorted(_root(package).rglob("*.py")):
            name = ".".join((package, *path.relative_to(_root(package)).with_suffix("").parts))
            yield name, path, ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _feature(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "llm_costopt" and parts[1] in FEATURES else None


def test_features_do_not_import_each_other() -> None:
    """A feature imports nothing of the core but itself and the shared records, so each works alone."""
    wrong = []
    for name, _, tree in _files("llm_costopt"):
        if own := _feature(name):
            others = {i for i in _imports(tree) if i.startswith("llm_costopt.")}
            wrong += [(name, i) for i in others if i.split(".")[1] not in {own, *SHARED}]

    assert wrong == []


def test_the_core_knows_no_framework() -> None:
    """Only the command line, which sits on top of everything, imports a host package."""
    hosts = ("langchain", "llama_index", "llamaindex_costopt")
    wrong = [
        (name, i)
        for name, _, tree in _files("llm_costopt")
        for i in _imports(tree)
        if i.startswith(hosts) and name != "llm_costopt.cli"
    ]

    assert wrong == []


def test_host_packages_do_not_import_each_other() -> None:
    """LangChain's package works without LlamaIndex's and the other way round."""
    wrong = [(n, i) for n, _, t in _files("langchain_costopt") for i in _imports(t) if i.startswith("llama")]
    wrong += [(n, i) for n, _, t in _files("llamaindex_costopt") for i in _imports(t) if i.startswith("langchain")]

    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_does_no_work(package: str) -> None:
    """Importing a package loads no model, no numpy and no host, and touches no logging."""
    code = (
        f"import sys, logging; import {package}\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], logging.getLogger().handlers)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert out.stdout.strip() == "[] []"


def test_public_names() -> None:
    """The public face is what is listed here, so that growing it is seen."""
    langchain = importlib.import_module("langchain_costopt")
    llamaindex = importlib.import_module("llamaindex_costopt")
    core = importlib.import_module("llm_costopt")

    assert langchain.__all__ == [
        "BatchWindow",
        "BatchingCallbackHandler",
        "CostCallbackHandler",
        "RouterChatModel",
        "RouterMiddleware",
        "SemanticCache",
        "cache_scope",
        "endpoint",
        "use_batch_api",
    ]
    assert llamaindex.__all__ == [
        "BatchingLLM",
        "CachedLLM",
        "CostEventHandler",
        "RouterLLM",
        "cache_scope",
        "endpoint",
        "use_batch_api",
    ]
    assert core.__all__ == [
        "Answer", "AsyncBatchTransport", "BadLogError", "BatchQueue", "BatchTransport", "Budget", "BudgetExceededError",
        "CacheStats", "CallRecord", "CostOptError", "LearnedRules", "Ledger", "Message", "MissingExtraError", "Prices",
        "Question", "QueueStats", "Saved", "SemanticCache", "Summary", "ToolCall", "Usage", "cache_scope",
        "endpoint",
    ]  # fmt: skip
    for module in (langchain, *([llamaindex] if importlib.util.find_spec("llama_index") else []), core):
        assert all(getattr(module, name).__module__.startswith(PACKAGES) for name in module.__all__)
        assert dir(module) == module.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as it does on any module."""
    module = importlib.import_module("langchain_costopt")

    with pytest.raises(AttributeError, match="SemanticCash"):
        _ = module.SemanticCash


@pytest.mark.parametrize(
    ("host", "package", "name", "extra"),
    [
        ("langchain_core", "langchain_costopt", "SemanticCache", "langchain"),
        ("llama_index", "llamaindex_costopt", "CachedLLM", "llamaindex"),
    ],
)
def test_a_missing_host_names_the_install_line(host: str, package: str, name: str, extra: str) -> None:
    """Without a host installed, using a name of its package says what to install."""
    code = (
        f"import sys; sys.modules[{host!r}] = None\n"
        f"import {package}\n"
        f"try: {package}.{name}\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert f"pip install 'llm-costopt[{extra}]'" in out.stdout


def test_functions_are_short() -> None:
    """No function body is longer than 40 lines of code."""
    long = []
    for name, path, tree in _files(*PACKAGES):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                code = [lines[n].strip() for s in body for n in range(s.lineno - 1, s.end_lineno or 0)]
                if len([c for c in code if c and not c.startswith("#")]) > 40:
                    long.append((name, node.name))

    assert long == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    """No code loads objects from data."""
    forbidden = re.compile(
        r"\b(?:pickle|marshal|shelve|dill|cloudpickle|langchain_core\.load(?!\.dump\b))\b|(?<![\w.])(?:eval|exec)\("
    )
    wrong = [name for name, path, _ in _files(*PACKAGES) if forbidden.search(path.read_text(encoding="utf-8"))]

    assert wrong == []


def test_every_test_says_what_it_proves() -> None:
    """Each test function has a docstring."""
    wrong = []
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                wrong += [(path.name, node.name)] if not ast.get_docstring(node) else []

    assert wrong == []
