"""`llm-costopt cache`, as a person and as a script call it."""

import json
import random
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.cli import app
from llm_costopt.types import Answer
from tests.cache.test_budget import ask, traffic
from tests.redis_server import RedisServer


def run(*arguments: str) -> str:
    """Call the command line and give what it prints."""
    done = CliRunner().invoke(app, ["cache", *arguments], env={"COLUMNS": "120"})
    if done.exception:
        raise done.exception
    return done.output


def figures(*arguments: str) -> dict[str, Any]:
    """Call it for figures."""
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


def observed(requests: int, **options: Any) -> None:
    """Observe made traffic, and close the cache."""
    cache = SemanticCache(mode="observe", rng=random.Random(1).random, **options)
    for text, right in traffic(requests):
        assert cache.find(ask(text)) is None
        cache.save(ask(text), Answer(text=right), right)
    cache.close()


SCRIPT = """
import sys
from llm_costopt import Answer, Message, Question, SemanticCache

cache = SemanticCache(path=sys.argv[1])
for n in range(5):
    question = Question(messages=(Message(role="human", text=f"What is thing {n}?"),))
    if cache.find(question) is None:
        cache.save(question, Answer(text="It is."), "It is.")
"""


def test_a_redis_without_its_packages_is_one_sentence() -> None:
    """What is to be installed is said with the exact line."""
    code = "import sys; sys.modules['redis'] = None\nfrom llm_costopt.cli import main; main()"
    line = [sys.executable, "-c", code, "cache", "redis://127.0.0.1:9/0"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'llm-costopt[redis]'" in done.stderr


def test_a_script_that_closes_nothing_leaves_its_figures(tmp_path: Path) -> None:
    """What a program counts in its last minute, or in its only one, is noted when it ends."""
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "cache.db")], check=True, timeout=60)

    assert figures(str(tmp_path / "cache.db"))["lookups"] == 5


def test_a_week_of_observing_is_printed_from_the_file(tmp_path: Path) -> None:
    """Would-be hits of several runs add up, with what was compared, how many are wrong, and which preset allows that."""
    path = tmp_path / "cache.db"
    for _ in range(2):
        observed(300, path=path)
    found = figures(str(path))

    assert (found["lookups"], found["misses"], found["hits_exact"], found["hits_semantic"]) == (600, 600, 0, 0)
    assert found["would_exact"] + found["would_semantic"] + found["entries"] == 600
    assert 0 < found["compared"] == found["would_semantic"]
    assert found["entries"] < 300
    share, low, high = found["wrong_of_requests"]
    assert 0 <= low <= share <= high <= 1
    printed = " ".join(run(str(path)).split())
    assert f"cache.db: {found['entries']} entries, counted since" in printed
    assert "only observed: in other words" in printed
    assert f"The model said the same {found['agreed']:,} times of {found['compared']:,}." in printed
    assert "The presets allow: conservative 0.3 %, balanced 1 %, aggressive 2 %. The interval is within" in printed


def test_it_says_which_preset_the_interval_is_within(tmp_path: Path) -> None:
    """Many comparisons without an error are within what the two bolder presets allow."""
    with sqlite3.connect(_counted(tmp_path, "label")) as db:
        db.execute("UPDATE counts SET n = 3000 WHERE name != 'since'")
        db.execute("UPDATE counts SET n = 3000000 WHERE name = 'visible_thousandths'")
        db.execute("UPDATE counts SET n = 2990 WHERE name = 'agreed'")

    assert "is within what is allowed by balanced and aggressive." in " ".join(run(str(tmp_path / "cache.db")).split())


def test_answers_in_free_text_are_said_to_be_hard_to_compare(tmp_path: Path) -> None:
    """Where not all that agrees can be seen to, the page says so."""
    _counted(
        tmp_path,
        "It takes the best part of twenty minutes, with the lid on and a little salt in the water. Then let it rest.",
    )

    assert "Some answers are free text" in " ".join(run(str(tmp_path / "cache.db")).split())


def _counted(folder: Path, says: str) -> Path:
    cache = SemanticCache(threshold=0.6, mode="observe", path=folder / "cache.db")
    for text in ("How do I cook rice?", "how can i cook the rice"):
        cache.find(ask(text))
        cache.save(ask(text), Answer(text=says, finish="stop"), says)
    cache.close()
    return folder / "cache.db"


def test_nothing_counted_nothing_claimed(tmp_path: Path) -> None:
    """A new cache says that nothing was counted, one without comparisons that nobody knows."""
    path = str(tmp_path / "cache.db")
    cache = SemanticCache(path=path)
    assert "0 entries; nothing was counted yet" in run(path)

    cache.find(ask("What is it?"))
    cache.close()
    assert "No answer was compared yet, so that nobody knows how many are wrong." in run(path)
    assert figures(path)["wrong_of_requests"] is None
    assert "nothing was counted yet" in run(path, "--namespace", "other")


def test_figures_are_noted_once_a_minute(tmp_path: Path) -> None:
    """What is counted reaches the file with the first answer, then a minute later, and at the end."""
    now, path = [1000.0], str(tmp_path / "cache.db")
    cache = SemanticCache(path=path, clock=lambda: now[0])
    seen = []
    for n in range(4):
        now[0] += 25 * (n > 0)
        cache.find(ask(f"Question {n}?"))
        cache.save(ask(f"Question {n}?"), Answer(text="a"), "a")
        seen.append(figures(path)["misses"])
    cache.find(ask("Last?"))
    cache.close()

    assert seen == [1, 1, 1, 4]
    assert figures(path)["misses"] == 5


def test_figures_that_cannot_be_noted_are_noted_later(tmp_path: Path) -> None:
    """While another process holds the file, nothing of what was counted is lost, nor counted twice."""
    now, path = [1000.0], str(tmp_path / "cache.db")
    cache = SemanticCache(path=path, clock=lambda: now[0])
    cache.find(ask("First?"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with cache.failsafe("update"):
            cache.save(ask("First?"), Answer(text=""), "")
        other.execute("ROLLBACK")
    for n in range(2):
        now[0] += 60
        cache.find(ask(f"Question {n}?"))
        cache.save(ask(f"Question {n}?"), Answer(text=""), "")
    cache.close()

    assert (figures(path)["misses"], cache.stats().misses) == (3, 3)


def test_a_redis_that_is_away_is_told_in_one_sentence() -> None:
    """Where nobody listens, the command says what to do, in one sentence without the password."""
    pytest.importorskip("redisvl")
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match=r"the Redis cannot be read \(ConnectionError\): give the url=") as told:
            run(f"redis://user:secret@127.0.0.1:{unused.getsockname()[1]}/0")

    assert "secret" not in str(told.value)


def test_a_redis_is_read_by_its_url(redis_server: RedisServer) -> None:
    """Figures that many machines share are those of the namespace in Redis."""
    pytest.importorskip("redisvl")
    observed(30, url=redis_server.url, namespace="shop", timeout=30)

    found = figures(redis_server.url, "--namespace", "shop")
    assert (found["lookups"], found["hits_exact"]) == (30, 0)
    assert found["would_exact"] + found["would_semantic"] + found["entries"] == 30


@pytest.mark.parametrize(
    "content", [None, b"", b"no database at all, but some text that is long enough to look like one"]
)
def test_what_is_no_cache_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or foreign file is one sentence, and nothing is made or set aside."""
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValueError, match=r"there is no cache|cannot be used"):
        run(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["x.db"])
