"""The bundled embedder, and what becomes of the vectors of others."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_costopt.cache.embed import WordLlamaEmbedder, unit

ALONE = """
import logging, socket, sys

def forbidden(*args, **kwargs):
    raise AssertionError("the embedder asked the network")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = forbidden
before = logging.getLogger().handlers[:], logging.getLogger().level
from llm_costopt.cache.embed import WordLlamaEmbedder
assert "wordllama" not in sys.modules
assert WordLlamaEmbedder().embed("Where is the station?").shape == (256,)
assert (logging.getLogger().handlers, logging.getLogger().level) == before
"""


def cosine(one: str, other: str) -> float:
    """Compare two texts with the bundled embedder."""
    vectors = [unit(WordLlamaEmbedder().embed(text)) for text in (one, other)]
    first, second = (v for v in vectors if v is not None)
    return float(first @ second)


def test_the_bundled_embedder_needs_no_network_and_leaves_logging_alone() -> None:
    """In a fresh process it loads on first use, connects to nothing, and changes neither handlers nor level."""
    result = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stderr) == (0, "")


@cache
def own_model() -> Any:
    """Load the model that the embedder is made of."""
    import wordllama

    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


PIECES = [
    "reset",
    "my",
    "passwörd",
    " ",
    "  ",
    "\n",
    "<s>",
    "<",
    ">",
    "\u2581",
    "é",
    "あ",
    "😀",
    "?",
    ".",
    "-",
    "1",
    "x" * 40,
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=40))
@settings(deadline=None)
def test_word_by_word_is_the_same_as_the_whole(text: str) -> None:
    """The vector is that of the tokens that the model's own tokenizer finds in the whole text, to the last bit."""
    model = own_model()
    folded = " ".join(text.casefold().split()).rstrip("?!. ")
    ids = model.tokenizer.encode(folded, add_special_tokens=False).ids
    whole = model.embedding[ids].sum(axis=0) / max(1, len(ids)) if ids else np.zeros(256)

    assert WordLlamaEmbedder().embed(text).tolist() == whole.tolist()


@pytest.mark.parametrize("text", ["", " ", "?!.", "\n\t", "\x00", "\u200b"])
def test_a_text_without_words_does_no_harm(text: str) -> None:
    """Texts that hold nothing to embed give a vector of the usual length, with no warning."""
    assert WordLlamaEmbedder().embed(text).shape == (256,)


@pytest.mark.parametrize("text", ["", "  ", "?", "!", "?!..."])
def test_marks_alone_have_no_direction(text: str) -> None:
    """What holds no word is like nothing else, so that "?" is not answered with what was said to "!"."""
    assert unit(WordLlamaEmbedder().embed(text)) is None


def test_case_spacing_and_closing_marks_do_not_matter() -> None:
    """The same words typed otherwise are the same vector."""
    assert cosine("Where is  the STATION?", " where is the station ") == pytest.approx(1.0)


def test_meaning_is_what_is_near() -> None:
    """A paraphrase is nearer than a question about something else."""
    paraphrase = cosine("How do I cook rice?", "how can i cook the rice")

    assert paraphrase > 0.9
    assert cosine("How do I cook rice?", "Who wrote the first novel?") < 0.5


NUMBERS = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=1, max_size=8)


@given(NUMBERS, st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]))
@settings(deadline=None)
def test_any_scale_becomes_length_one(numbers: list[float], scale: float) -> None:
    """Whatever an embedder's scale, the direction is kept and the length is 1; no direction, no vector."""
    given_vector = np.asarray(numbers, dtype=np.float64)
    found = unit(np.asarray(given_vector * scale, dtype=np.float32))

    if found is None:
        assert np.linalg.norm(given_vector * scale) == 0.0
    else:
        assert found.dtype == np.float32
        assert found == pytest.approx(given_vector / np.linalg.norm(given_vector), abs=1e-6)


@pytest.mark.parametrize("numbers", [[], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_no_direction_no_vector(numbers: list[float]) -> None:
    """Nothing, zeros, NaN and infinity point nowhere, which is no error and no warning."""
    assert unit(np.asarray(numbers, dtype=np.float32)) is None


def test_a_row_is_as_good_as_a_vector() -> None:
    """Embedders that return a batch of one are understood."""
    assert unit(np.asarray([[3.0, 4.0]], dtype=np.float32)) == pytest.approx([0.6, 0.8])
