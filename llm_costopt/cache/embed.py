"""Text → unit vector: the `Embedder` protocol and the bundled default."""

import logging
import math
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
"""One dimension, float32; unit length once it went through `unit`."""

Rows: TypeAlias = NDArray[np.float32]
"""One vector a row."""


_MARKS = re.compile("[<\u2581]")
"""Signs of what the tokenizer takes for its own marks, next to which spaces count."""

_SHORT = 32
"""Characters of a word up to which its tokens are remembered."""


class Embedder(Protocol):
    """Whatever turns a question into a vector."""

    @property
    def name(self) -> str:
        """Tell this embedder's vectors from any other's; entries of another name are not searched."""
        ...

    def embed(self, text: str) -> Vector:
        """Embed one text; any length and scale will do."""
        ...


class WordLlamaEmbedder:
    """Embed with the static vectors that the `wordllama` wheel holds: 256 numbers, no download.

    Measured: 0.4 s to load on first use, then about 10 µs a question, and 5 µs more for each word that is new.
    """

    name = "wordllama-256-folded"

    def embed(self, text: str) -> Vector:
        """Embed *text* without regard to letter case, spacing and closing punctuation.

        Case alone moves a question to a cosine of 0.93; what case can mean is a guard's business.
        """
        folded = " ".join(text.casefold().split()).rstrip("?!. ")
        # What was nothing but marks is now empty and gives zeros: "?" and "!" have no meaning in common.
        ids: list[int] = []
        for word in [folded] if _MARKS.search(folded) else folded.split():
            ids += _known(word) if len(word) <= _SHORT else _tokens(word)
        # The model's own `embed` makes a batch of one: the same numbers in twice the time.
        rows: Rows = _model().embedding.take(ids, axis=0, mode="clip")
        total: Vector = np.add.reduce(rows, axis=0)
        return total / np.float32(max(1, len(ids)))


def _tokens(text: str) -> list[int]:
    ids: list[int] = _model().tokenizer.encode(text, add_special_tokens=False).ids
    return ids


# No token of the model reaches over a space, so that a text has the tokens of its words, most of which were met before.
_known = lru_cache(maxsize=16384)(_tokens)


@cache
def _model() -> Any:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    import wordllama  # 0.3 s to import and 16 MB to read: only when first used

    # Its import calls `logging.basicConfig(level=INFO)`; what the application logs is not for a cache to decide.
    root.handlers[:] = handlers
    root.setLevel(level)
    # `load()` alone looks for the tokenizer in the wrong folder and then asks the network.
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def unit(vector: Vector) -> Vector | None:
    """Scale *vector* to length 1; None if it has no direction (empty text, NaN)."""
    flat = np.asarray(vector, dtype=np.float64).ravel()  # the squares of a small scale vanish in float32
    length = math.sqrt(flat.dot(flat))
    if not math.isfinite(length) or length == 0.0:
        return None
    return (flat / length).astype(np.float32)
