"""Arrays that nobody can change, with finite numbers in them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .errors import VectorError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# The largest entry of a tensor: far above any activation, and small enough that neither ½‖c‖² nor alpha · v can
# overflow float32.
MAX_ENTRY = 1e6

_Scalar = TypeVar("_Scalar", bound=np.generic)


def finite_float32(values: npt.ArrayLike, ndim: int, what: str) -> Float32:
    """`values` as a C-contiguous, little-endian float32 array of `ndim` dimensions, none of them empty.

    Raises:
        VectorError: wrong number of dimensions, empty, not numeric, or not finite in float32.
    """
    try:
        given = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise VectorError(f"{what} is not an array of real numbers: {error}") from error
    if given.dtype.kind not in "fiu":
        raise VectorError(f"{what} has dtype {given.dtype}; expected real numbers")
    with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below with a sentence
        array = np.asarray(given, dtype="<f4", order="C")
    if array.ndim != ndim or array.size == 0:
        raise VectorError(f"{what} has shape {array.shape}; expected {ndim} non-empty dimension(s)")
    if not np.isfinite(array).all():
        raise VectorError(f"{what} holds NaN or infinite numbers; only finite float32 numbers can be steered with")
    return array


def bfloat16_as_float32(data: bytes) -> Float32:
    """Little-endian bfloat16 numbers as float32 [n], exactly; numpy lacks the dtype, and they are its upper halves."""
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def frozen_float32(values: npt.ArrayLike, ndim: int, what: str) -> Float32:
    """`finite_float32`, read-only, and shared rather than copied when nobody can write to its memory."""
    return frozen(finite_float32(values, ndim, what))


def frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A read-only array of the same content; a copy unless its memory is read-only already."""
    view = array.view()
    try:
        view.flags.writeable = True  # numpy refuses where nobody may write to the memory underneath
    except ValueError:
        return array
    array = array.copy()
    array.flags.writeable = False
    return array
