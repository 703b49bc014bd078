"""The algebra of steering vectors, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtab.vectors import SteeringVector
from trimtab.vectors.errors import VectorError

SIZE = 5
# Small integers in float32 add and multiply exactly, so that the laws hold without a tolerance.
numbers = st.integers(-1000, 1000)
vectors = st.lists(numbers, min_size=SIZE, max_size=SIZE).map(lambda values: SteeringVector(1, np.array(values)))
reals = arrays(np.float32, SIZE, elements=st.floats(-1e6, 1e6, width=32)).map(lambda values: SteeringVector(1, values))
ZERO = SteeringVector(1, np.zeros(SIZE))


@given(vectors, vectors, vectors)
def test_addition_is_associative_and_commutative(a: SteeringVector, b: SteeringVector, c: SteeringVector) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a


@given(reals)
def test_a_vector_less_itself_is_zero_and_its_negative_is_minus_one_times_it(a: SteeringVector) -> None:
    assert a - a == ZERO
    assert -a == -1 * a == a * -1
    negative = -a
    assert -negative == a
    assert a + ZERO == a


@given(vectors, vectors, numbers, numbers)
def test_scaling_distributes_over_both_sums(a: SteeringVector, b: SteeringVector, x: int, y: int) -> None:
    assert (a + b) * x == a * x + b * x
    assert a * (x + y) == a * x + a * y


@given(reals, st.sampled_from([2.0, 4.0, 0.5, -8.0]))
def test_division_undoes_scaling_by_powers_of_two(a: SteeringVector, x: float) -> None:
    # Exact while no entry becomes subnormal.
    a = SteeringVector(1, np.where(np.abs(a.values) < 1e-30, 0, a.values))
    assert (a * x) / x == a


@given(reals, st.floats(-1000, 1000))
def test_the_norm_scales_with_the_vector(a: SteeringVector, x: float) -> None:
    assert (a * x).norm == pytest.approx(abs(x) * a.norm, rel=1e-5, abs=1e-30)


@given(vectors, vectors, st.integers(1, 1000))
def test_cosine_is_symmetric_bounded_and_blind_to_length(a: SteeringVector, b: SteeringVector, x: int) -> None:
    if a == ZERO or b == ZERO:
        return
    assert -1 <= a.cosine(b) <= 1
    assert a.cosine(b) == b.cosine(a)
    assert (a * x).cosine(b) == pytest.approx(a.cosine(b), abs=1e-9)
    assert a.cosine(a) == pytest.approx(1)
    assert a.cosine(-a) == pytest.approx(-1)


def test_between_leads_from_the_original_to_the_target() -> None:
    original, target = np.array([[1, 0], [3, 0]]), np.array([[2, 7], [2, 9], [2, 8]])
    assert SteeringVector.between(original, target, 4) == SteeringVector(4, np.array([0, 8]))


@given(arrays(np.float32, (3, SIZE), elements=st.floats(-100, 100, width=32)), vectors)
def test_between_of_shifted_rows_is_the_shift_and_swaps_sign_with_its_arguments(
    rows: np.ndarray, shift: SteeringVector
) -> None:
    found = SteeringVector.between(rows, rows + shift.values, 1)
    np.testing.assert_allclose(found.values, shift.values, atol=1e-3)
    assert SteeringVector.between(rows + shift.values, rows, 1) == -found


def test_between_does_not_drift_with_the_number_of_rows() -> None:
    rows = np.full((200_000, 1), 0.1, np.float32)
    assert SteeringVector.between(rows[:1], rows, 0) == SteeringVector(0, np.zeros(1))


def test_numpy_scalars_scale_from_either_side() -> None:
    a = SteeringVector(1, np.arange(SIZE))
    assert np.float32(2) * a == a * np.float64(2) == a + a  # type: ignore[operator]  # numpy declares less than it does


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (SteeringVector(1, np.ones(3)), SteeringVector(2, np.ones(3))),
        (SteeringVector(1, np.ones(3)), SteeringVector(1, np.ones(4))),
        (SteeringVector(1, np.ones(1)), SteeringVector(1, np.ones(4))),
    ],
    ids=["layers", "sizes", "a size that numpy would broadcast"],
)
def test_vectors_of_different_spaces_do_not_mix(left: SteeringVector, right: SteeringVector) -> None:
    for mix in (left.__add__, left.__sub__, left.cosine):
        with pytest.raises(VectorError):
            mix(right)
    assert left != right


def test_the_values_are_the_vectors_own_and_cannot_be_changed() -> None:
    given_values = np.ones(3, np.float32)
    a = SteeringVector(0, given_values)
    given_values[0] = 7
    assert a.values.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        a.values[0] = 7
    with pytest.raises(ValueError, match="WRITEABLE"):
        a.values.view().flags.writeable = True


def test_a_read_only_view_of_writable_memory_is_copied() -> None:
    owner = np.ones(3, np.float32)
    view = owner.view()
    view.flags.writeable = False
    a = SteeringVector(0, view)
    owner[0] = 7
    assert a.values.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "values",
    [
        [1, np.nan],
        [np.inf, 0],
        [1e39, 0],
        [],
        3.0,
        [[1.0, 2.0]],
        ["a", "b"],
        [True, False],
        [1 + 2j, 0],
        [[1], [1, 2]],
        None,
    ],
    ids=str,
)
def test_what_is_no_finite_vector_is_refused(values: object) -> None:
    with pytest.raises(VectorError):
        SteeringVector(0, values)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [-1, True, 1.0, "1", None])
def test_what_is_no_layer_is_refused(layer: object) -> None:
    with pytest.raises(VectorError, match="layer"):
        SteeringVector(layer, np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e39])
def test_scaling_never_makes_a_vector_that_is_not_finite(factor: float) -> None:
    with pytest.raises(VectorError):
        SteeringVector(0, np.ones(2)) * factor


def test_division_by_zero_and_the_cosine_of_zero_are_errors() -> None:
    with pytest.raises(VectorError, match="zero"):
        ZERO / 0
    with pytest.raises(VectorError, match="no direction"):
        ZERO.cosine(ZERO + SteeringVector(1, np.ones(SIZE)))


@pytest.mark.parametrize("other", [True, "2", None, np.ones(SIZE)])
def test_a_vector_is_scaled_by_numbers_only(other: object) -> None:
    with pytest.raises(TypeError):
        ZERO * other  # type: ignore[operator]
