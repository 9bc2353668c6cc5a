"""What a router is told and what it can be asked: the half of both hosts' routers that is the same."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llm_costopt.account import Price
from llm_costopt.presets import Preset
from llm_costopt.router.complexity import Complexity, complexity
from llm_costopt.router.confidence import Confidence, confidence
from llm_costopt.router.cooldown import COOL_DOWN
from llm_costopt.router.learned import LearnedRules, Targets
from llm_costopt.router.policy import Cascade
from llm_costopt.router.router import Memory, Router
from llm_costopt.router.settings import here_of, spelled_out, told_apart, with_preset
from llm_costopt.router.spending import Budget
from llm_costopt.router.start import Model, memory_of, rule_name
from llm_costopt.switch import Mode


class RouterOptions(BaseModel):
    """The options of a router over *tiers*, models of a host that is itself a pydantic model.

    What a router begins with is frozen, since to set it later would change nothing.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    tiers: list[Any] = Field(min_length=1, exclude=True)
    """The models, from the cheapest to the strongest."""
    preset: Preset = Field(default="balanced", frozen=True)
    """How far to go: the default of `cascade` and `threshold`, see `llm_costopt.presets.ROUTER`."""
    mode: Mode = "on"
    """`observe`: the strongest tier answers, and what would have been asked is noted; `off`: it answers at once."""
    cascade: Cascade = "medium"
    """Which requests may get a draft that is judged: `never` any, the `medium` ones, or `always` all that are not simple."""
    threshold: float = Field(default=0.7, ge=0, le=1)
    """The least confidence at which an answer of any tier but the last is kept, where no target is given."""
    endpoints: dict[str, Any] = Field(default_factory=dict)
    """What holds inside `with endpoint(name):` instead: a preset, a mode, or a mapping of `preset`, `mode`, `cascade`, `threshold`."""
    target_quality: float | None = Field(default=None, frozen=True, gt=0, le=1, exclude=True)
    """Share of the strongest tier's quality to keep, with 95 % confidence."""
    max_strong_share: float | None = Field(default=None, frozen=True, ge=0, le=1, exclude=True)
    """Largest share of the requests that the strongest tier answers, as long as another one can."""
    max_cost_per_request: float | None = Field(default=None, frozen=True, gt=0, exclude=True)
    """US dollars that a request may cost on average; the balance shifts to cheaper tiers, and no request is refused."""
    budgets: list[Budget] = Field(default_factory=list, exclude=True)
    """What may be spent in a time or under a tag; a request that might exceed it raises `BudgetExceededError`."""
    prices: Price | None = Field(default=None, exclude=True)
    """`(model, usage, *, provider=None, batch=False)` → US dollars or None; `Prices()` if not given."""
    shadow_rate: float = Field(default=0.0, frozen=True, ge=0, le=1, exclude=True)
    """Share of the requests for which the other tiers are asked as well, in the background, to be compared."""
    judge: Any = Field(default=None, exclude=True)
    """Compares: `(question, answer, reference)` → 0 to 1 or None, or a model that is asked which of both is better."""
    control_share: float = Field(default=0.0, ge=0, le=1, exclude=True)
    """Share of the requests that the strongest tier answers at once, for `llm-costopt ab`."""
    on_score: Callable[[str, float], object] | None = Field(default=None, exclude=True)
    """Is told the id of a call and how good its answer was: `ledger.score`."""
    learned: LearnedRules | None = Field(default=None, frozen=True, exclude=True)
    """What outcomes have taught so far; `llm-costopt calibrate` writes it. Without it the router begins with nothing."""
    complexity: Complexity = Field(default=complexity, exclude=True)
    """Says how hard a request is, and why, while nothing is learned; by default the rules of `llm_costopt.router.complexity`."""
    confidence: Confidence = Field(default=confidence, exclude=True)
    """Says how sure an answer is, and why; the checks of `llm_costopt.router.confidence` if not given."""
    cool_down: float = Field(default=COOL_DOWN, frozen=True, ge=0)
    """Seconds for which a tier that keeps failing, or has reached a rate limit, is not asked; the last one always is."""
    memory: Memory | None = Field(default=None, exclude=True, repr=False)
    """What a router knows and its copies share; made at the start."""

    @field_validator("endpoints", mode="after")
    @classmethod
    def _spelled_out(cls, endpoints: dict[str, Any]) -> dict[str, Any]:
        return spelled_out(endpoints)

    def _begin(self, models: Sequence[Model], price: Price) -> None:
        """Make what the router and its copies share, unless a copy has it."""
        if self.memory is not None:
            return
        self.memory = memory_of(
            models,
            price=price,
            targets=Targets(
                target_quality=self.target_quality,
                max_strong_share=self.max_strong_share,
                max_cost_per_request=self.max_cost_per_request,
            ),
            with_budgets=bool(self.budgets),
            learned=self.learned,
            shadow_rate=self.shadow_rate,
            is_judged=self.judge is not None,
            cool_down=self.cool_down,
            complexity=self.complexity,
            confidence=self.confidence,
        )

    @property
    def core(self) -> Router:
        """The router without its host, as its options are now."""
        return Router(
            names=[self.tier_name(tier) for tier in range(len(self.tiers))],
            memory=self._memory,
            complexity=self.complexity,
            confidence=self.confidence,
            **self._here(),
            budgets=self.budgets,
            control=self.control_share,
            on_score=self.on_score,
        )

    @property
    def rules(self) -> LearnedRules:
        """What was learned so far, with the operating point: `router.rules.save("router.json")`."""
        return self._memory.learned

    def tier_name(self, tier: int) -> str:
        """Name a tier: `strong` for the last, `cheap` for the first, `tier 2` and so on between them."""
        if tier == len(self.tiers) - 1:
            return "strong"
        return f"tier {tier + 1}" if tier else "cheap"

    def feedback(self, call: str, score: float) -> bool:
        """Learn how good the answer of a call was.

        Args:
            call: the `id` of an attempt in the answer's marks (`llm_costopt`), which is the id of its record too.
            score: from 0 (wrong) to 1 (right).

        Returns:
            Whether the call is remembered, as the last 1,024 are.

        Raises:
            TypeError: a *call* that is no text.
            ValueError: a *score* that is not between 0 and 1.
        """
        if not isinstance(call, str):
            raise TypeError(f"feedback is about the id of a call, not about {type(call).__name__}")
        if not isinstance(score, Real) or not 0 <= score <= 1:
            raise ValueError(f"a score is from 0 to 1, not {score!r}")
        return self.core.feedback(call, float(score))

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until what runs in the background is done, or *timeout* seconds; tell whether it is."""
        return self._memory.shadow.wait(timeout)

    def _depends_on(self) -> dict[str, Any]:
        """Say what an answer depends on beside the tiers, for the key of a cache."""
        return {
            **told_apart(self._here()),
            "complexity": rule_name(self.complexity),
            "confidence": rule_name(self.confidence),
            "learned": self.learned and self.learned.fingerprint,
            "targets": (self.target_quality, self.max_strong_share, self.max_cost_per_request),
        }

    def _here(self) -> dict[str, Any]:
        """Say what holds for the present call: its endpoint and the kill switch have a word in it."""
        return here_of(self.endpoints, mode=self.mode, cascade=self.cascade, threshold=self.threshold)

    @property
    def _memory(self) -> Memory:
        assert self.memory is not None  # noqa: S101 - made at the start
        return self.memory


def begun(tiers: Sequence[Any] | None, cheap: Any, strong: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Give the fields that *tiers*, or *cheap* and *strong*, and *options* mean, those of the preset among them.

    Raises:
        ValueError: both short names or neither of them, beside *tiers*.
    """
    if (tiers is None) is (cheap is None or strong is None) or (cheap is None) is not (strong is None):
        raise ValueError("give cheap= and strong=, or tiers= with as many models as there are")
    return {"tiers": [cheap, strong] if tiers is None else list(tiers), **with_preset(options)}
