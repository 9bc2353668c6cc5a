"""Unit vectors in 16 bits a number: half of the memory, and less to read for an exact product of a few rows.

A cosine is off by less than 0.0001: each number by at most half of 1/32767.
"""

from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.embed import Rows, Vector

Fixed: TypeAlias = NDArray[np.int16]

_ONE = np.float32(32767)
"""What 1.0 is; no number of a unit vector is larger."""


def fixed(rows: Rows | Fixed) -> Fixed:
    """Write *rows* in 16 bits a number; those that are so are returned as they are."""
    return cast("Fixed", rows) if rows.dtype == np.int16 else np.rint(rows * _ONE).astype(np.int16)


def floating(rows: Rows | Fixed) -> Rows:
    """Read them again; rows in floating point are returned as they are."""
    return rows.astype(np.float32) / _ONE if rows.dtype == np.int16 else cast("Rows", rows)


def cosines(rows: Rows | Fixed, vector: Vector) -> Vector:
    """Multiply each of *rows* by unit *vector*."""
    scale = _ONE if rows.dtype == np.int16 else np.float32(1)
    # Not `@`, which waits for threads: 2,000 rows take 0.05 ms, with fewer free cores than BLAS threads 24 ms.
    product: Vector = np.vecdot(rows.astype(np.float32, copy=False), vector / scale)
    return product
