"""The router that the host packages drive: what is known is kept here, what is called is theirs."""

import logging
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from llm_costopt.errors import BudgetExceededError
from llm_costopt.observed import SWITCHED_OFF, Observed, say
from llm_costopt.recent import Recent
from llm_costopt.router.capability import lacks, needs_of, unsaid
from llm_costopt.router.cascade import Attempt, Call, Outcome, Reply, cascade
from llm_costopt.router.complexity import Complexity
from llm_costopt.router.confidence import Confidence
from llm_costopt.router.cooldown import CoolDown, Strain, strain_of
from llm_costopt.router.costs import Costs, Previous
from llm_costopt.router.decision import Arm, Decision
from llm_costopt.router.drafts import Drafts, route_of
from llm_costopt.router.learned import LearnedRules
from llm_costopt.router.policy import Cascade, Policy, Situation, Step, Verdict, policy_of
from llm_costopt.router.shadow import Judge, Shadow, scores_of
from llm_costopt.router.spending import Allowance, Budget
from llm_costopt.switch import Mode
from llm_costopt.types import Answer, Question

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as the host hands it over."""

    question: Question
    """What is asked."""
    profiles: Sequence[Mapping[str, Any]]
    """What each tier's model can do, by the keys of LangChain's model profiles; empty where nobody says."""
    max_tokens: int = 0
    """How long the answer may be; 0 if nobody said."""
    tags: Sequence[str] = ()
    """The caller's."""
    previous: Previous | None = None
    """The turn before; None if the conversation begins or nobody knows who answered it."""
    loop: int = 0
    """The tier that made the tool calls which this request answers: an agent does not flip in the middle of its loop."""


@dataclass(kw_only=True)
class Memory:
    """All that a router knows and its copies share: what was learned, who fails, what was spent."""

    learned: LearnedRules
    """What outcomes have taught."""
    costs: Costs
    """What requests cost on each tier."""
    cool_down: CoolDown
    """Which tiers have just failed."""
    shadow: Shadow
    """Which requests are compared."""
    share: Allowance | None = None
    """The limit of strong calls."""
    mean_cost: Allowance | None = None
    """The limit of what a request costs on average."""
    drafts: Drafts = field(default_factory=Drafts)
    """Where drafts pay."""
    calls: Recent[str, tuple[Question, int, Answer | None]] = field(default_factory=Recent)
    """What feedback may be about."""


@dataclass(frozen=True, kw_only=True)
class Router:
    """Decide, learn and account for requests over tiers of models.

    Args are its fields; `begin` a request, drive its flow, then `settle` what each call cost.
    """

    names: Sequence[str]
    """Of the tiers, from the cheapest to the strongest."""
    memory: Memory
    """What is known."""
    complexity: Complexity
    """Says how hard a request is."""
    confidence: Confidence
    """Says how sure an answer is."""
    threshold: float
    """The least confidence at which a draft is kept, where no target is given."""
    mode: Mode = "on"
    """Of this request: to `observe` is to ask the strongest tier and note what would have been asked; `off` just asks it."""
    cascade: Cascade = "medium"
    """Which requests may get a draft."""
    budgets: Sequence[Budget] = ()
    """What may be spent."""
    control: float = 0.0
    """Share of the requests that the strongest tier answers at once, for comparison."""
    judge: Judge | None = None
    """Compares answers."""
    on_score: Callable[[str, float], object] | None = None
    """Is told the id of a call and how good its answer was: a ledger's `score`."""
    random: Callable[[], float] = random.random
    """Gives numbers from 0 to 1."""
    clock: Callable[[], float] = time.time
    """Tells the time in seconds since the epoch."""

    def begin(self, request: Request) -> "Run":
        """Look at *request* and all that stands around it."""
        arm: Arm | None = None
        if self.control > 0 and self.mode == "on":
            arm = "control" if self.random() < self.control else "routed"
        skipped = self._skipped(request)
        tiers = range(len(self.names))
        usable = tuple(t for t in tiers if t not in skipped) or (tiers[-1],)
        costs, question = self.memory.costs, request.question
        full = costs.of(question, max_tokens=request.max_tokens)
        usd = costs.of(question, previous=request.previous, max_tokens=request.max_tokens) if request.previous else full
        route = route_of(question)
        ratio = usd[usable[0]] / usd[usable[-1]] if usd and usd[usable[-1]] else None
        situation = Situation(
            question=question,
            usable=usable,
            costs=tuple(u / full[-1] for u in usd) if usd and full and full[-1] else None,
            thrift=self._thrift(request.tags) if self.mode == "on" else 0.0,
            drafts=self.memory.drafts.pay(route, ratio),
            cascade=self.cascade,
            on=request.previous.tier if request.previous else None,
        )
        return Run(
            router=self,
            request=request,
            arm=arm,
            skipped=skipped,
            situation=situation,
            route=route,
            usd=usd,
            at=self.clock(),
            compared=self.judge is not None and self.mode != "off" and self.memory.shadow.chosen(),
        )

    def policy(self) -> Policy:
        """Give the policy that what was learned is ready for."""
        return policy_of(
            self.memory.learned, complexity=self.complexity, confidence=self.confidence, threshold=self.threshold
        )

    def feedback(self, call: str, score: float) -> bool:
        """Learn how good the answer of a call was, from 0 to 1; tell whether the call is remembered."""
        known = self.memory.calls.get(call)
        if known is None:
            return False
        question, tier, draft = known
        self.memory.learned.learn(question, score, tier=tier, answer=draft)
        self.scored(call, score)
        return True

    def limits(self, tags: Sequence[str]) -> list[Budget | Allowance]:
        """List the limits in US dollars that a request with *tags* is under."""
        return [
            *(b for b in self.budgets if b.tag is None or b.tag in tags),
            *([self.memory.mean_cost] if self.memory.mean_cost else []),
        ]

    def scored(self, call: str, score: float) -> None:
        """Pass on how good the answer of a call was."""
        if self.on_score is None:
            return
        try:
            self.on_score(call, score)
        except Exception:  # what keeps scores must not fail the caller
            log.warning("a score could not be kept", exc_info=True)

    def _thrift(self, tags: Sequence[str]) -> float:
        limits = self.limits(tags) + ([self.memory.share] if self.memory.share else [])
        return max((limit.thrift() for limit in limits), default=0.0)

    def _skipped(self, request: Request) -> dict[int, str]:
        """Find the tiers that lack what the request needs, or have just failed; the last one has none to stand in."""
        last = len(self.names) - 1
        if last == 0:
            return {}
        loop = dict.fromkeys(range(request.loop), "a tool loop stays on its tier")
        cooling = {tier: why for tier, why in self.memory.cool_down.cooling().items() if tier < last}
        needs = needs_of(request.question, max_tokens=request.max_tokens)
        missing = {n: why for n, profile in enumerate(request.profiles) if (why := lacks(profile, needs))}
        return {**loop, **cooling, **missing}


class _Straight:
    """Ask the strongest usable tier at once."""

    def __init__(self, why: str) -> None:
        self._why = why

    def start(self, s: Situation) -> Step:
        return Step(tier=s.usable[-1], final=True, level="complex", why=self._why)

    def judge(self, s: Situation, step: Step, answer: Answer) -> Verdict:
        raise NotImplementedError  # there is no draft


class _Observing(_Straight):
    """Ask the strongest usable tier, and say what *policy* would have asked; it is not a decision, and costs no allowance."""

    def __init__(self, policy: Policy, run: "Run") -> None:
        self._policy, self._run = policy, run

    def start(self, s: Situation) -> Step:
        step, last = self._policy.start(s), s.usable[-1]
        usd = self._run.usd
        share = usd[step.tier] / usd[last] if usd and usd[last] else None
        self._run.would = self._run.router.names[step.tier]
        would = Observed(tier=self._run.would, drafts=not step.final, share=share)
        return replace(step, tier=last, final=True, why=say(would, step.why))


class _Affordable:
    """A policy that asks no tier whose call the budgets do not hold."""

    def __init__(self, policy: Policy, run: "Run") -> None:
        self._policy, self._run = policy, run

    def start(self, s: Situation) -> Step:
        step = self._policy.start(s)
        try:
            self._run.reserve(step.tier)
        except BudgetExceededError:
            if self._run.arm == "control":  # a comparison must not refuse what would have been answered without it
                self._run.arm, self._policy = None, self._run.router.policy()
            step = self._policy.start(replace(s, thrift=1.0))
            self._run.reserve(step.tier)
        return step

    def judge(self, s: Situation, step: Step, answer: Answer) -> Verdict:
        verdict = self._policy.judge(s, step, answer)
        if verdict.then is not None:
            try:
                self._run.reserve(verdict.then.tier)
            except BudgetExceededError:
                return replace(verdict, then=None, why=f"{verdict.why}; no budget holds a better one")
        return verdict


@dataclass(kw_only=True)
class Run:
    """One request on its way; made by `Router.begin`."""

    router: Router
    """Whose it is."""
    request: Request
    """What is asked."""
    arm: Arm | None
    """Of the comparison."""
    skipped: Mapping[int, str]
    """Tiers that are not asked, and why."""
    situation: Situation
    """What the policy sees."""
    route: str
    """Where drafts are counted."""
    usd: tuple[float, ...] | None
    """Expected US dollars of each tier's answer; None if a price is unknown."""
    at: float
    """When it began, in seconds since the epoch."""
    compared: bool
    """Whether the other tiers are asked as well, afterwards."""
    reserved: set[int] = field(default_factory=set)
    """Tiers whose next call is charged already."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """What the tiers said, as far as they were asked."""
    ids: dict[int, str] = field(default_factory=dict)
    """The call of each tier."""
    would: str | None = None
    """The tier that would have been asked first, if the router merely observes."""
    attempts: list[Attempt[Any]] = field(default_factory=list)
    """The calls so far, that of the last tier's failure too."""

    def flow(
        self, *, read: Callable[[Reply], Answer], unfit: Callable[[Exception], str | None]
    ) -> Generator[Call, Reply, Outcome[Reply]]:
        """Ask tier after tier: yields calls, is sent replies, returns the outcome.

        *read* gives a reply in the core's terms, *unfit* names the errors that mean a bad answer.

        Raises:
            BudgetExceededError: a budget does not even hold what the cheapest usable tier is expected to cost.
        """
        for allowance in self._allowances():
            allowance.request()
        policy = self._policy()
        return cascade(
            self.situation,
            _Affordable(policy, self) if self.router.mode == "on" else policy,
            read=read,
            unfit=unfit,
            begun=self._begun,
            made=lambda attempt: self._made(attempt, read),
            skipped=self.skipped,
        )

    @contextmanager
    def watched(self, outcome: Outcome[Any], *, unfit: Callable[[Exception], str | None]) -> Iterator[None]:
        """Note a failure of the tier whose accepted answer breaks off inside, after its first chunk; nobody else can be asked then."""
        try:
            yield
        except Exception as error:
            if unfit(error) is None:
                self._failed(outcome.attempts[-1].call.tier, strain_of(error))
            raise

    def settle(self, call: Call, *, usd: float | None, written: int | None) -> None:
        """Correct what was reserved for *call*, whose answer has *written* tokens; None is unknown and corrects nothing."""
        if written:
            self.router.memory.costs.wrote(call.tier, written)
        if usd is not None and self.usd is not None:
            self._charge(usd - self.usd[call.tier])

    def finish(self, outcome: Outcome[Any], answer: Answer, ask: Callable[[int], Answer]) -> None:
        """Remember what feedback may be about, and compare the tiers' answers in the background, if the request was drawn for it.

        *answer* is the accepted one, *ask* gets that of another tier.
        """
        router = self.router
        self.answers[outcome.attempts[-1].call.tier] = answer
        router.memory.cool_down.worked(outcome.attempts[-1].call.tier)
        for attempt in outcome.attempts:
            call = attempt.call
            self.ids[call.tier] = call.id
            router.memory.calls.put(call.id, (self.request.question, call.tier, self.answers.get(0)))
        if self.compared and router.judge is not None:
            router.memory.shadow.start(partial(self._compare, ask, router.judge))

    def decision(self, outcome: Outcome[Any] | None = None, attempts: Sequence[Mapping[str, Any]] = ()) -> Decision:
        """Say what was decided, with *attempts* as the host tells them; without *outcome*, what would be."""
        first = outcome.first if outcome else self._policy().start(self.situation)
        names, memory = self.router.names, self.router.memory
        asked = {a.call.tier for a in outcome.attempts} if outcome else set()
        rate = memory.shadow.rate
        return Decision(
            complexity=first.level,
            why=first.why,
            tier=names[outcome.attempts[-1].call.tier if outcome else first.tier],
            would=self.would,
            escalated=outcome.escalated if outcome else False,
            fell_back=outcome.fell_back if outcome else False,
            at=self.at,
            skipped={names[t]: why for t, why in self.skipped.items()},
            unknown=self._unknown(),
            arm=self.arm,
            right={names[t]: round(p, 3) for t, p in enumerate(first.right)} if first.right else None,
            cost={names[t]: round(c, 8) for t, c in enumerate(self.usd)} if self.usd else None,
            propensity={names[t]: 1.0 if t in asked else rate for t in range(len(names))} if rate else None,
            attempts=tuple(attempts),
        )

    def _policy(self) -> Policy:
        if self.router.mode == "off":
            return _Straight(SWITCHED_OFF)
        if self.arm == "control":
            return _Straight("the control arm of a comparison")
        policy = self.router.policy()
        return _Observing(policy, self) if self.router.mode == "observe" else policy

    def _allowances(self) -> list[Allowance]:
        """List the limits on the mean; what nobody decided counts for none of them."""
        memory = self.router.memory
        return [a for a in (memory.share, memory.mean_cost) if a and self.router.mode == "on"]

    def _begun(self, call: Call) -> None:
        """Charge a call that was not reserved: a limit of the mean is, and a tier that stands in for one that failed."""
        if self.usd is not None and call.tier not in self.reserved:
            self._charge(self.usd[call.tier])
        self.reserved.discard(call.tier)
        self._count(call.tier, 1.0)

    def _made(self, attempt: Attempt[Any], read: Callable[[Any], Answer]) -> None:
        """Note what every call shows: who fails, whether drafts pay, what feedback may be about."""
        memory, call = self.router.memory, attempt.call
        self.attempts.append(attempt)
        if attempt.result == "failed":
            self._failed(call.tier, attempt.strain)
            self._count(call.tier, -1.0)
            if self.usd is not None:
                self._charge(-self.usd[call.tier])
            return
        if not call.final:
            memory.cool_down.worked(call.tier)
            memory.drafts.noted(self.route, escalated=attempt.result == "rejected")
            if attempt.reply is not None:
                self.answers[call.tier] = read(attempt.reply)

    def _failed(self, tier: int, strain: Strain | None) -> None:
        if strain is not None:
            self.router.memory.cool_down.failed(tier, rate_limited=strain == "rate limit")

    def reserve(self, tier: int) -> None:
        """Hold what a call of *tier* is expected to cost: many may be on their way.

        Raises:
            BudgetExceededError: a budget does not hold it; then nothing is held.
        """
        if self.usd is None:
            return
        held: list[Budget | Allowance] = []
        try:
            for limit in self.router.limits(self.request.tags):
                limit.reserve(self.usd[tier])
                held.append(limit)
        except BudgetExceededError:
            for limit in held:
                limit.charge(-self.usd[tier])
            raise
        self.reserved.add(tier)

    def _charge(self, usd: float) -> None:
        for limit in self.router.limits(self.request.tags):
            if limit is not self.router.memory.mean_cost or self.router.mode == "on":
                limit.charge(usd)

    def _count(self, tier: int, calls: float) -> None:
        """Count a call of the strongest tier, or take one back that gave no answer."""
        share = self.router.memory.share
        if share and self.router.mode == "on" and tier == len(self.router.names) - 1:
            share.charge(calls)

    def _compare(self, ask: Callable[[int], Answer], judge: Judge) -> None:
        names = self.router.names
        answers = {t: self.answers[t] if t in self.answers else self._beside(t, ask) for t in range(len(names))}
        scores = scores_of(self.request.question, answers, judge=judge, strongest=len(names) - 1)
        if scores is None:
            return
        self.router.memory.learned.observe(self.request.question, scores, answer=answers[0])
        for tier, score in scores.items():
            if tier in self.ids:
                self.router.scored(self.ids[tier], score)

    def _beside(self, tier: int, ask: Callable[[int], Answer]) -> Answer:
        """Ask a tier for comparison only; it is paid for like any other call, though no budget stops it."""
        answer = ask(tier)
        if self.usd is not None:
            self._charge(self.usd[tier])
        return answer

    def _unknown(self) -> dict[str, str]:
        needs = needs_of(self.request.question, max_tokens=self.request.max_tokens)
        told = {self.router.names[t]: unsaid(self.request.profiles[t], needs) for t in self.situation.usable}
        return {name: what for name, what in told.items() if what}
