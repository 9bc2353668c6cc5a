"""The kill switch."""

import logging

import pytest

from llm_costopt.switch import VARIABLE, Mode, checked, mode


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (None, "on"),
        ("", "on"),
        ("on", "on"),
        ("1", "on"),
        ("off", "off"),
        (" OFF ", "off"),
        ("0", "off"),
        ("false", "off"),
        ("observe", "observe"),
        ("Observe", "observe"),
    ],
)
def test_the_environment_is_read_each_time(monkeypatch: pytest.MonkeyPatch, said: str | None, means: Mode) -> None:
    """What stands in the environment now is what holds now."""
    monkeypatch.setenv(VARIABLE, "off")
    assert mode() == "off"
    if said is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, said)

    assert mode() == means


def test_an_unknown_word_is_off_and_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever mistypes the switch gets the plain calls, and one line in the log."""
    monkeypatch.setenv(VARIABLE, "of")
    with caplog.at_level(logging.WARNING):
        found = [mode() for _ in range(3)]

    assert found == ["off"] * 3
    assert [r.getMessage() for r in caplog.records] == [
        "LLM_COSTOPT is 'on', 'observe' or 'off'; 'of' is taken for 'off'"
    ]


@pytest.mark.parametrize("said", ["on", "observe", "off"])
@pytest.mark.parametrize("own", ["on", "observe", "off"])
def test_the_more_careful_one_holds(monkeypatch: pytest.MonkeyPatch, said: str, own: Mode) -> None:
    """The environment can only make a part more careful than it was told to be, and the other way round."""
    monkeypatch.setenv(VARIABLE, said)
    order = ["on", "observe", "off"]

    assert mode(own) == order[max(order.index(said), order.index(own))]


def test_no_other_mode_is_taken() -> None:
    """A misspelt mode says which there are."""
    wrong: Mode = "shadow"  # type: ignore[assignment]

    assert checked("observe") == "observe"
    with pytest.raises(ValueError, match="mode is 'on', 'observe' or 'off', not 'shadow'"):
        checked(wrong)
