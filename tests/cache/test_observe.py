"""A cache that observes, is switched off, or goes as far as a preset or an endpoint says."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_costopt import endpoint
from llm_costopt.cache.records import Checked
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.cache.sqlite import SQLiteStore
from llm_costopt.presets import CACHE
from llm_costopt.types import Answer, Message, Question
from tests.cache.test_budget import traffic

RICE, RICE_TOO, RIVER = "How do I cook rice?", "how can i cook the rice", "Which river is the longest?"


def ask(text: str) -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),))


def answer(cache: SemanticCache, text: str, says: str) -> str:
    """Ask as an application does: from store, or else the model, which *says* something."""
    question = ask(text)
    hit = cache.find(question)
    if hit is None:
        cache.save(question, Answer(text=says, finish="stop"), says)
    return hit.payload if hit else says


def test_a_would_be_hit_is_a_miss_and_is_compared() -> None:
    """Each lookup misses; what would have been served is counted, and held against what the model says."""
    cache = SemanticCache(threshold=0.6, mode="observe")

    assert [answer(cache, text, says) for text, says in ((RICE, "boil"), (RICE_TOO, "boil"), (RICE_TOO, "fry"))] == [
        "boil",
        "boil",
        "fry",
    ]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.would_exact, stats.would_semantic) == (0, 3, 0, 2)
    assert (stats.hit_rate, stats.would_hit_rate) == (0.0, 2 / 3)
    assert (stats.checked.compared, stats.checked.agreed, stats.checked.visible) == (2, 1, 2.0)


def test_the_very_same_request_is_counted_apart_and_not_compared() -> None:
    """An exact would-be hit is no question of meaning, and the first answer stays, as it would with a hit."""
    cache = SemanticCache(mode="observe")
    for says in ("boil", "fry"):
        assert answer(cache, RICE, says) == says

    stats = cache.stats()
    assert (stats.would_exact, stats.would_semantic, stats.checked.compared) == (1, 0, 0)
    assert (stats.stored, stats.not_stored) == (1, {"observed": 1})


def test_observing_predicts_what_serving_does() -> None:
    """On made traffic the would-be hits and their measured errors are close to the hits and errors of a cache that serves."""
    requests = traffic(1500)
    observing, serving = (
        SemanticCache(mode="observe", rng=random.Random(1).random),
        SemanticCache(rng=random.Random(1).random),
    )
    wrong = 0
    for text, right in requests:
        assert answer(observing, text, right) == right
        wrong += answer(serving, text, right) != right
    would, does = observing.stats(), serving.stats()

    assert would.would_hit_rate == pytest.approx(does.hit_rate, abs=0.05)
    assert would.checked.compared == would.would_semantic
    assert would.checked.wrong is not None
    _, low, high = (part * would.would_semantic / len(requests) for part in would.checked.wrong)
    assert low <= wrong / len(requests) <= high


def test_what_is_observed_is_learned_from() -> None:
    """A cache whose would-be hits turn out wrong stops choosing them, as one that serves does."""
    cache = SemanticCache(mode="observe", max_error=0.2, min_hit_rate=0)
    rng = random.Random(2)
    for text, _ in traffic(400):
        answer(cache, text, str(rng.random()))  # each answer is another one
    before = cache.stats().would_semantic
    for text, _ in traffic(400, seed=4):
        answer(cache, text, str(rng.random()))

    assert cache.stats().would_semantic - before < before / 2


def test_of_a_serving_cache_only_what_was_checked_is_compared() -> None:
    """Hits that go to the model all the same are compared, and nothing else is."""
    cache = SemanticCache(shadow_rate=0.3, rng=random.Random(1).random)
    for text, right in traffic(600):
        answer(cache, text, right)
    stats = cache.stats()

    assert 0 < stats.checked.compared == stats.refused["shadow"]
    assert stats.would_exact == stats.would_semantic == 0


def test_free_text_that_differs_is_not_all_wrong() -> None:
    """Of answers in free text about half of the equal ones are seen to be equal, and the estimate takes that into account."""
    assert Checked(compared=100, agreed=50, visible=50.0).wrong == pytest.approx((0.0, 0.0, 0.193), abs=0.001)
    assert Checked(compared=200, agreed=198, visible=200.0).wrong == pytest.approx((0.01, 0.0027, 0.0357), abs=0.0001)
    assert Checked(compared=0, agreed=0, visible=0.0).wrong is None


def test_where_none_is_wrong_the_interval_begins_at_none() -> None:
    """Whatever the number that was compared, rounding puts no end of the interval beyond the share."""
    found = [Checked(compared=n, agreed=n, visible=float(n)).wrong for n in range(1, 500)]

    assert {wrong[:2] for wrong in found if wrong is not None} == {(0.0, 0.0)}


@pytest.mark.parametrize("options", [{"mode": "off"}, {}])
def test_switched_off_it_is_not_there(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """By its own mode, or by the environment at any moment, nothing is looked up, counted or stored."""
    cache = SemanticCache(**options)
    if not options:
        answer(cache, RIVER, "Nile")
        monkeypatch.setenv("LLM_COSTOPT", "off")
    before = cache.stats()

    assert [answer(cache, text, f"{n}") for n, text in enumerate((RIVER, RICE, RICE))] == ["0", "1", "2"]
    assert cache.stats() == before

    monkeypatch.delenv("LLM_COSTOPT", raising=False)
    assert answer(cache, RIVER, "again") == ("again" if options else "Nile")


async def test_switched_off_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asynchronous lookup obeys as well, and observes as well."""
    cache = SemanticCache()
    answer(cache, RICE, "boil")
    assert await cache.afind(ask(RICE))

    monkeypatch.setenv("LLM_COSTOPT", "off")
    assert await cache.afind(ask(RICE)) is None
    monkeypatch.setenv("LLM_COSTOPT", "observe")
    assert await cache.afind(ask(RICE)) is None
    assert cache.stats().would_exact == 1


def test_the_switch_frees_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that began before the switch was thrown leaves nobody waiting for its answer."""
    cache = SemanticCache(single_flight=1000.0)
    assert cache.find(ask(RICE)) is None
    monkeypatch.setenv("LLM_COSTOPT", "off")
    assert not cache.save(ask(RICE), Answer(text="boil"), "boil")
    monkeypatch.delenv("LLM_COSTOPT")

    assert cache.find(ask(RICE)) is None
    assert cache.stats().waited == 0


def bars(cache: SemanticCache) -> tuple[float, float]:
    """Say which shadow rate and which threshold hold for the present call, 0 for the one that is not used."""
    policy = vars(cache._parts.policies.here())
    return policy.get("_shadow_rate", 0), policy.get("_threshold", 0)


@pytest.mark.parametrize("preset", list(CACHE))
def test_a_preset_fills_in_and_what_is_given_wins(preset: Any) -> None:
    """Each preset is a mapping of options; an option beside it is the one that holds."""
    whole, own = SemanticCache(preset=preset), SemanticCache(preset=preset, shadow_rate=0.5)

    assert bars(whole) == (CACHE[preset]["shadow_rate"], 0)
    assert bars(own) == (0.5, 0)
    assert bars(SemanticCache(preset=preset, threshold=0.97)) == (0, 0.97)
    assert bars(SemanticCache()) == bars(SemanticCache(preset="balanced"))


def test_a_conservative_cache_serves_less_than_an_aggressive_one() -> None:
    """On made traffic hits rise from preset to preset."""
    rates = []
    for preset in ("conservative", "balanced", "aggressive"):
        cache = SemanticCache(preset=preset, rng=random.Random(1).random)
        for text, right in traffic(800):
            answer(cache, text, right)
        rates.append(cache.stats().hits)

    assert rates == sorted(set(rates))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "careful"}, "preset is one of conservative, balanced, aggressive, not 'careful'"),
        ({"mode": "dry"}, "mode is 'on', 'observe' or 'off', not 'dry'"),
        ({"endpoints": {"a": "dry"}}, "say one of conservative, balanced, aggressive, on, observe, off, or options"),
        ({"endpoints": {"a": {"path": "x"}}}, "path cannot differ by endpoint; there are preset, mode, max_error"),
        ({"endpoints": {"a": {"mode": "dry"}}}, "mode is 'on', 'observe' or 'off', not 'dry'"),
        ({"endpoints": {"a": {"preset": "dry"}}}, "preset is one of"),
        ({"endpoints": {"a": {"max_error": 2}}}, "endpoints={'a': …}: max_error is a share of the requests"),
        ({"endpoints": {"a": {"threshold": 0}}}, "endpoints={'a': …}: threshold is a cosine above 0"),
        ({"endpoints": {"a": {"ttl": -1}}}, "ttl"),
        ({"endpoints": {"a": "conservative"}, "threshold": 0.9}, "a cache with threshold= learns nothing"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    """A wrong word, value or option says what there is."""
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        SemanticCache(**options)


def test_an_endpoint_has_its_own_mode() -> None:
    """Inside `with endpoint(…)` its word holds, for lookups and for what is stored; outside the cache's own does."""
    cache = SemanticCache(endpoints={"drafts": "off", "new": "observe"})
    answer(cache, RICE, "boil")

    with endpoint("drafts"):
        assert answer(cache, RICE, "fry") == "fry"
        assert answer(cache, RIVER, "Nile") == "Nile"
    with endpoint("new"):
        assert answer(cache, RICE, "steam") == "steam"
    with endpoint("other"):
        assert answer(cache, RICE, "bake") == "boil"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.stored, stats.would_exact) == (1, 2, 1, 1)


def test_an_endpoint_has_its_own_options() -> None:
    """Preset, error, threshold and time to live differ by endpoint, and all learn together."""
    now = [1000.0]
    cache = SemanticCache(
        endpoints={
            "search": "conservative",
            "faq": {"preset": "aggressive", "shadow_rate": 0.3},
            "plain": {"threshold": 0.6},
            "news": {"ttl": 60},
        },
        clock=lambda: now[0],
        ttl=None,
    )
    assert bars(cache) == (0.04, 0)
    for name, expected in (("search", (0.1, 0)), ("faq", (0.3, 0)), ("plain", (0, 0.6)), ("other", (0.04, 0))):
        with endpoint(name):
            assert bars(cache) == expected

    with endpoint("news"):
        answer(cache, RIVER, "Nile")
    answer(cache, RICE, "boil")
    now[0] += 100
    assert (answer(cache, RIVER, "Amazon"), answer(cache, RICE, "fry")) == ("Amazon", "boil")
    with endpoint("plain"):
        assert answer(cache, RICE_TOO, "steam") == "boil"


def test_endpoints_learn_together(tmp_path: Path) -> None:
    """What the calls of one endpoint teach is what all others know."""
    cache = SemanticCache(path=tmp_path / "cache.db", endpoints={"search": "conservative"})
    with endpoint("search"):
        for text, right in traffic(300):
            answer(cache, text, right)

    cache.close()
    store = SQLiteStore(tmp_path / "cache.db")
    assert store.learned() is not None
    store.close()


def test_an_explanation_is_that_of_the_endpoint() -> None:
    """`explain` shows the bar of the endpoint inside whose block it is called."""
    cache = SemanticCache(endpoints={"plain": {"threshold": 0.6}})
    answer(cache, RICE, "boil")

    def bar(explained: Callable[[], Any]) -> float:
        return float(explained().judgement.bar)

    outside = bar(lambda: cache.explain(ask(RICE_TOO)))
    with endpoint("plain"):
        assert bar(lambda: cache.explain(ask(RICE_TOO))) == 0.6 != outside
