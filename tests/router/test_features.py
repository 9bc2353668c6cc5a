import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.router import features
from llm_costopt.router.features import Features, of_draft, of_embedding, of_request, place
from llm_costopt.router.task import Task, task_of
from llm_costopt.types import Message, Question


def asked(text: str) -> tuple[Task, Question]:
    """Ask in one human turn."""
    question = Question(messages=(Message(role="human", text=text),))
    return task_of(question.messages), question


def request(text: str) -> Features:
    """Describe a request that the rules call medium."""
    return of_request(*asked(text), "medium")


def draft(text: str, task: str = "How many apples are 3 and 4?") -> Features:
    """Describe a draft."""
    return of_draft(asked(task)[0], text, 0.9)


def value(x: Features, name: str) -> float:
    """Read a small feature."""
    return float(x.values[x.indices == place(name)].item())


def words(x: Features) -> dict[int, float]:
    """Give what is hashed."""
    return {int(i): float(v) for i, v in zip(x.indices, x.values, strict=True) if i < features.SMALL}


@given(st.text(), st.text())
def test_any_text_has_sound_features(task: str, text: str) -> None:
    """Whatever the texts are, places are distinct and inside, values are finite, and words have length 1 or none."""
    x = of_request(*asked(task or "x"), "simple") + draft(text, task or "x")

    assert len(np.unique(x.indices)) == len(x.indices)
    assert x.indices.min() >= 0
    assert x.indices.max() < features.SIZE
    assert np.isfinite(x.values).all()
    for start in (features.TASK, features.DRAFT):
        part = [v for i, v in words(x).items() if start <= i < start + features.BUCKETS]
        assert sum(np.square(part)) == pytest.approx(1 if part else 0, abs=1e-4)


def test_hashes_are_the_same_in_every_process() -> None:
    """A state that one process wrote means the same in another, however Python salts its own hashes."""
    code = (
        "from llm_costopt.router.features import _words as w\n"
        "x = w('Ünïcode words, twice words 12', 0); print(x.indices.tolist(), x.values.round(5).tolist())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(told) == 1
    assert "[" in told.pop()


def test_hashes_are_the_same_in_every_version() -> None:
    """The buckets of a text are fixed: a change of them must change the fingerprint as well."""
    assert sorted(words(request("Add two")))[:3] == [2662, 6951, 8870]


def test_the_order_of_words_counts() -> None:
    """The same words in another order share single words and differ in pairs."""
    a, b = words(request("dog bites man")), words(request("man bites dog"))

    assert set(a) & set(b)
    assert set(a) != set(b)


def test_beginnings_of_words_count() -> None:
    """Two forms of one word have more in common than two different words."""
    one, other, another = (set(words(request(w))) for w in ("calculating", "calculation", "horse"))

    assert len(one & other) > len(one & another)


def test_material_is_not_read() -> None:
    """Retrieved context changes nothing but the count of the material."""
    plain = request("Who met?")
    with_context = request("Context: The committee met on a rainy day.\n\nQuestion: Who met?")

    assert words(plain) == words(with_context)
    assert value(with_context, "material") > value(plain, "material") == 0


def test_a_long_text_is_read_at_both_ends() -> None:
    """Of a very long draft the start and the end are read, and the work stays bounded."""
    middle = " ".join(f"w{n}" for n in range(20_000))
    found = words(draft(f"alpha {middle} omega"))

    assert set(words(draft("alpha"))) <= set(found)
    assert set(words(draft("omega"))) <= set(found)
    assert len(found) < features.LONGEST
    assert value(draft(f"alpha {middle} omega"), "words") > value(draft(middle[:5000]), "words")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("so 3+4=8", "so 3+4=7"),
        ("2 * 3 + 4 = 14", "2 * 3 + 4 = 10"),
        ("$1,000 / 3 = $300", "$1,000 / 3 = $333.33"),
        ("2 × 3 = 5", "2 × 3 = 6"),
        ("5 - 7 = 2", "5 - 7 = -2"),
    ],
)
def test_sums_are_checked(wrong: str, right: str) -> None:
    """An equation that does not hold is counted, one that holds up to rounding is not."""
    assert value(draft(wrong), "wrong equations") > value(draft(right), "wrong equations")
    assert value(draft(wrong), "equations") == value(draft(right), "equations") > value(draft("so"), "equations")


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("short last line", "First 3 and 4.\n7", "First 3 and 4 make 7."),
        ("ends like an end", "They are 7.", "They are 7 and"),
        ("distinct words", "one two three", "one one one"),
        ("hedges", "perhaps it is 7", "it is 7"),
        ("negation", "it isn't 7", "it is 7"),
        ("says that it concludes", "The answer is 7", "It is 7"),
        ("has code", "```\n7\n```", "7"),
        ("numbers of the task that occur", "3 and 4 are 7", "they are 7"),
        ("numbers from nowhere", "it is 99", "it is 4"),
        ("last number is a fraction", "it is 7.5", "it is 7.0"),
        ("last number occurs before", "3 and 4 are 7, so 7", "3 and 4 are 7"),
        ("last number is the task's", "it is 4", "it is 7"),
        ("lines", "a\nb\nc", "a b c"),
        ("words", "a b c", "a"),
        ("numbers", "1 2 3", "1"),
    ],
)
def test_what_drafts_have_in_common_is_counted(name: str, more: str, less: str) -> None:
    """Each small feature rises with what its name says."""
    assert value(draft(more), name) > value(draft(less), name)


def test_odd_numbers_do_no_harm() -> None:
    """Numbers without a value, of any size, divided by zero or in endless rows give finite features."""
    for text in ("9" * 400 + ".5", "1.2.3 + 1 = 4", "1/0=5", "1+" * 50_000 + "=3", "٣ + ٤ = ٧", "1,2,3 = 6"):
        assert np.isfinite(draft(text, text).values).all()


def test_an_embedding_is_scaled_and_appended() -> None:
    """An embedding takes the places from its start on, with length 1; a null vector stays one."""
    x = of_embedding(np.array([3, 4], dtype=np.float32), 100)

    assert x.indices.tolist() == [100, 101]
    assert x.values == pytest.approx([0.6, 0.8])
    assert of_embedding(np.zeros(2, dtype=np.float32), 0).values.tolist() == [0.0, 0.0]
