"""Tiers that fail are left alone for a while."""

import pytest

from llm_costopt.router.cooldown import COOL_DOWN, FAILURES, CoolDown, strain_of


class Clock:
    """A clock that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def cool(clock: Clock) -> CoolDown:
    """Make a cool-down of the usual length."""
    return CoolDown(clock=clock)


def test_some_failures_in_a_row_are_an_outage(cool: CoolDown) -> None:
    """One failure less does not count, nor do failures with an answer between them."""
    for _ in range(FAILURES - 1):
        cool.failed(0)
    assert cool.cooling() == {}
    cool.worked(0)
    cool.failed(0)
    assert cool.cooling() == {}
    for _ in range(FAILURES - 1):
        cool.failed(0)

    assert list(cool.cooling()) == [0]


def test_a_rate_limit_counts_at_once(cool: CoolDown) -> None:
    """The provider has said to come back later; the reason tells for how long yet, and other tiers go on."""
    cool.failed(1, rate_limited=True)

    assert cool.cooling() == {1: f"failed, left alone for {COOL_DOWN:.0f} s"}


def test_it_ends_by_time_or_by_an_answer(cool: CoolDown, clock: Clock) -> None:
    """After the time the tier is asked again, one failure leaves it alone anew, an answer ends it at once."""
    cool.failed(0, rate_limited=True)
    clock.now += COOL_DOWN
    assert cool.cooling() == {}
    cool.failed(0, rate_limited=True)
    assert list(cool.cooling()) == [0]
    cool.worked(0)

    assert cool.cooling() == {}


def test_with_no_seconds_nothing_cools(clock: Clock) -> None:
    """Whoever sets 0 gets every call tried."""
    cool = CoolDown(0, clock=clock)
    cool.failed(0, rate_limited=True)

    assert cool.cooling() == {}


class BadRequestError(Exception):
    """What the SDKs of OpenAI and Anthropic call it."""


def told(name: str = "Error", *bases: type[Exception], **said: object) -> Exception:
    """Make an error that says what it says in its class's name or in attributes, as those of the SDKs do."""
    error: Exception = type(name, bases or (Exception,), {})()
    for attribute, value in said.items():
        setattr(error, attribute, value)
    return error


def wrapped(error: Exception) -> Exception:
    """Make an error of an integration, which raises its own from that of the SDK."""
    outer = told("ChatGoogleGenerativeAIError")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "strain"),
    [
        (told(status_code=400), None),
        (told(status_code=413), None),
        (told(status_code=422), None),
        (told("OpenAIContextOverflowError", BadRequestError), None),
        (told("ContextOverflowError"), None),
        (told("ClientError", code=400), None),
        (wrapped(told("ClientError", code=400)), None),
        (told("HTTPStatusError", response=told(status_code=400)), None),
        (told("ValidationException", response={"ResponseMetadata": {"HTTPStatusCode": 400}}), None),
        (told("ModelErrorException", response={"ResponseMetadata": {"HTTPStatusCode": 424}}), "outage"),
        (told("ThrottlingException", response={"ResponseMetadata": {"HTTPStatusCode": 400}}), "rate limit"),
        (told("RateLimitError", status_code=429), "rate limit"),
        (wrapped(told("ClientError", code=429)), "rate limit"),
        (told("AuthenticationError", status_code=401), "outage"),
        (told("PermissionDeniedError", status_code=403), "outage"),
        (told("NotFoundError", status_code=404, code="model_not_found"), "outage"),
        (told("APITimeoutError", status_code=408), "outage"),
        (told("InternalServerError", status_code=500, code=None), "outage"),
        (told("OverloadedError", status_code=529), "outage"),
        (TypeError("got an unexpected keyword argument"), None),
        (ValueError("the provider's own error, which some integrations raise so"), "outage"),
        (ConnectionError(), "outage"),
        (TimeoutError(), "outage"),
    ],
    ids=repr,
)
def test_the_health_of_a_tier_is_told_from_a_bad_request(error: Exception, strain: str | None) -> None:
    """What says that the request is at fault says nothing of the tier, by status or by name, as each SDK has it."""
    assert strain_of(error) == strain
