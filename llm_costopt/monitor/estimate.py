"""What a month costs: requests, tokens and prices, then each part that saves, in the order in which they meet a request."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from llm_costopt.monitor.prices import Prices
from llm_costopt.types import Usage

Rate = Decimal | float | str
"""A share from 0 to 1: a number, `"0.3"`, `"30%"`, or a range of them: `"20%..40%"`."""

DAYS = 30
"""Days of a month, here and in every price list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An amount, or the two ends between which it lies."""

    low: Decimal
    """The least."""
    high: Decimal
    """The most; the same where nothing was given as a range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A month after one more part was put in."""

    name: str
    """The part: `baseline`, `prompt cache`, `cache`, `router` or `batch`."""
    usd: Span
    """What the month costs with it and all before it, in US dollars."""
    saved_usd: Span
    """What it saves of what was left by those before it; negative where it costs more than it saves."""
    saved_share: Span
    """The same as a share of the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A month, step by step."""

    steps: tuple[Step, ...]
    """From the baseline on, which is the strong model alone."""
    notes: tuple[str, ...]
    """What was taken for given, a sentence each."""

    @property
    def usd(self) -> Span:
        """What the month costs in the end, in US dollars."""
        return self.steps[-1].usd

    @property
    def saved_share(self) -> Span:
        """How much less that is than the baseline, as a share of it."""
        baseline = self.steps[0].usd.high
        ends = [1 - usd / baseline if baseline else Decimal(0) for usd in (self.usd.high, self.usd.low)]
        return Span(low=ends[0], high=ends[1])


def estimate(
    *,
    requests_per_day: Decimal | float,
    input_tokens: int,
    output_tokens: int,
    strong: str = "gpt-4o",
    cheap: str = "gpt-4o-mini",
    prompt_cached: Rate = 0,
    cache_hits: Rate = 0,
    lookup_usd: Decimal | float | str = 0,
    routed_cheap: Rate = 0,
    escalated: Rate = 0,
    batched: Rate = 0,
    batch_discount: Rate | None = None,
    prices: Prices | None = None,
) -> Estimate:
    """Work out what 30 days cost, and what each part takes off what the parts before it have left.

    A hit needs no routing; routing decides what reaches the batch; the discount of a batch is on what is then paid.

    Args:
        requests_per_day: requests, answered from store or not.
        input_tokens: tokens that a request reads, on average.
        output_tokens: tokens that its answer has.
        strong: the model that answers everything today.
        cheap: the model that the router asks first.
        prompt_cached: share of the input that the provider serves from its own prompt cache. It comes first, since it
            does so without us.
        cache_hits: share of the requests that are answered from store.
        lookup_usd: US dollars that a look-up costs, such as one embedding; 0 with the bundled embedder.
        routed_cheap: share of the requests that miss which the cheap model answers.
        escalated: share of them whose cheap draft is paid for and rejected; the strong model answers the rest.
        batched: share of the calls that can wait for a Batch API.
        batch_discount: what a batch takes off, such as 0.5 (of a range the lower end); what the price list says if not given.
        prices: `Prices()` if not given; with overrides for models that it does not know.

    Raises:
        ValueError: a number is out of its range, a price is unknown, or the cheap model is the dearer one or the same.
    """
    notes: list[str] = []
    tokens = _tokens("input_tokens", input_tokens), _tokens("output_tokens", output_tokens)
    found = _Inputs(
        requests=_amount("requests_per_day", requests_per_day) * DAYS,
        lookup=_amount("lookup_usd", lookup_usd),
        strong=_costs(strong, tokens, prices or Prices(), batch_discount, notes),
        cheap=_costs(cheap, tokens, prices or Prices(), batch_discount, notes),
    )
    rates = _Rates(
        prompt=span_of("prompt_cached", prompt_cached),
        hits=span_of("cache_hits", cache_hits),
        cheap=span_of("routed_cheap", routed_cheap),
        escalated=span_of("escalated", escalated),
        batched=span_of("batched", batched),
    )
    if rates.cheap.high + rates.escalated.high > 1:
        raise ValueError("routed_cheap and escalated are shares of the same requests: together they are 1 at most")
    if cheap == strong and rates.cheap.high:
        raise ValueError(
            f"routed_cheap is the share that a cheaper model than {strong!r} answers: name it with cheap=, or --cheap"
        )
    if any(cheap > strong for cheap, strong in zip(found.cheap.all, found.strong.all, strict=True)):
        raise ValueError(f"{cheap!r} costs more than {strong!r} for these tokens: name them the other way round")
    if rates.batched.high == 0:
        notes.clear()
    months = [_months(found, rates.end(best=best)) for best in (True, False)]
    return Estimate(steps=_steps(*months), notes=tuple(dict.fromkeys(notes)))


def span_of(name: str, rate: Rate) -> Span:
    """Read a share or a range of shares.

    Raises:
        ValueError: it is none; *name* says whose it is.
    """
    ends = str(rate).split("..")
    try:
        read = [_decimal(end.removesuffix("%")) / (100 if end.endswith("%") else 1) for end in map(str.strip, ends)]
    except InvalidOperation:
        read = []
    if len(read) not in {1, 2} or not 0 <= read[0] <= read[-1] <= 1:
        raise ValueError(f"{name} is a share from 0 to 1, or a range such as 0.2..0.4 or 20%..40%, not {rate!r}")
    return Span(low=read[0], high=read[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Costs:
    """US dollars for one request to one model, by what of its input is cached and by whether it goes by batch."""

    fresh: Decimal
    cached: Decimal
    batch_fresh: Decimal
    batch_cached: Decimal

    @property
    def all(self) -> tuple[Decimal, ...]:
        return self.fresh, self.cached, self.batch_fresh, self.batch_cached

    def of(self, prompt: Decimal, batched: Decimal) -> Decimal:
        now = self.fresh + prompt * (self.cached - self.fresh)
        later = self.batch_fresh + prompt * (self.batch_cached - self.batch_fresh)
        return now + batched * (later - now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    requests: Decimal
    lookup: Decimal
    strong: _Costs
    cheap: _Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    prompt: Span
    hits: Span
    cheap: Span
    escalated: Span
    batched: Span

    def end(self, *, best: bool) -> tuple[Decimal, Decimal, Decimal, Decimal, Decimal]:
        """Take the ends at which a month costs least, or most: it falls with every rate but that of escalations."""
        falling = [s.high if best else s.low for s in (self.prompt, self.hits, self.cheap, self.batched)]
        prompt, hits, cheap, batched = falling
        return prompt, hits, cheap, self.escalated.low if best else self.escalated.high, batched


def _months(found: _Inputs, rates: tuple[Decimal, ...]) -> dict[str, Decimal]:
    """Price the month with one more part at a time, leaving out those that are not used."""
    prompt, hits, cheap, escalated, batched = rates

    def routed(share: Decimal) -> Decimal:
        strong, small = found.strong.of(prompt, share), found.cheap.of(prompt, share)
        return strong - cheap * (strong - small) + escalated * small

    paid = found.requests * (1 - hits)
    lookups = found.requests * found.lookup
    none = Decimal(0)
    return {
        "baseline": found.requests * found.strong.of(none, none),
        "prompt cache": found.requests * found.strong.of(prompt, none),
        "cache": paid * found.strong.of(prompt, none) + lookups,
        "router": paid * routed(none) + lookups,
        "batch": paid * routed(batched) + lookups,
    }


def _steps(best: dict[str, Decimal], worst: dict[str, Decimal]) -> tuple[Step, ...]:
    """Put the two ends together."""
    steps: list[Step] = []
    before = (best["baseline"], worst["baseline"])
    for name, low in best.items():
        usd = (low, worst[name])
        saved = sorted(b - u for b, u in zip(before, usd, strict=True))
        if name == "baseline" or usd != before:
            base = best["baseline"] or Decimal(1)
            share = Span(low=saved[0] / base, high=saved[1] / base)
            steps.append(
                Step(
                    name=name,
                    usd=Span(low=usd[0], high=usd[1]),
                    saved_usd=Span(low=saved[0], high=saved[1]),
                    saved_share=share,
                )
            )
        before = usd
    return tuple(steps)


def _costs(model: str, tokens: tuple[int, int], prices: Prices, discount: Rate | None, notes: list[str]) -> _Costs:
    read, written = tokens
    usages = [Usage(input_tokens=read, output_tokens=written, cache_read_tokens=cached) for cached in (0, read)]
    now = [_priced(model, usage, prices) for usage in usages]
    if discount is not None:
        later = [usd * (1 - span_of("batch_discount", discount).low) for usd in now]
    else:
        quotes = [prices.quote(model, usage, batch=True) for usage in usages]
        later = [min(usd, quote.usd) if quote else usd for usd, quote in zip(now, quotes, strict=True)]
        if later == now and any(now):
            notes.append(
                f"no batch price of {model} is known, so that none is counted; batch_discount= says what it is"
            )
        elif quotes[0] and quotes[0].source == "assumed_batch_discount":
            notes.append(f"half of its price was taken for batches of {model}, as its provider says")
    return _Costs(fresh=now[0], cached=now[1], batch_fresh=later[0], batch_cached=later[1])


def _priced(model: str, usage: Usage, prices: Prices) -> Decimal:
    usd = prices(model, usage)
    if usd is None:
        raise ValueError(
            f"the price of {model!r} is unknown: give prices=Prices({{{model!r}: (input, output)}}), or --price "
            f"{model}=INPUT/OUTPUT, in US dollars per million tokens"
        )
    return usd


def _tokens(name: str, count: int) -> int:
    if count != int(count) or count < 0:
        raise ValueError(f"{name} is a whole number of tokens, 0 or more, not {count!r}")
    return count


def _amount(name: str, given: Decimal | float | str) -> Decimal:
    try:
        amount = _decimal(str(given))
    except InvalidOperation:
        amount = Decimal(-1)
    if amount < 0:
        raise ValueError(f"{name} is a number of 0 or more, not {given!r}")
    return amount


def _decimal(text: str) -> Decimal:
    """Read a finite number; a float means the decimal that Python prints for it."""
    number = Decimal(text)
    if not number.is_finite():
        raise InvalidOperation(text)
    return number
