"""What a manifest may say, and the names and strengths that a request may ask for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trimtab.vectors import AlphaRange, Gate, ModelIdentity, Profile, SteeringVector
from trimtab.vectors.errors import AlphaError, FormatError
from trimtab.vectors.profile import Norms, Provenance

HOSTILE_NAMES = [
    "",
    "none",
    "None",
    "..",
    ".hidden",
    "../x",
    "a/b",
    "/etc",
    "a\\b",
    "C:x",
    "a\0",
    "\0",
    "a\n",
    "a b",
    "Polite",
    "polité",
    "рolite",  # the first letter is Cyrillic
    "ｐolite",
    "polite²",
    "a\u200b",
    "-polite",
    "_polite",
    "%2e%2e",
    "a" * 64,
    "a" * 100_000,
]


def named(name: str) -> Profile:
    model = ModelIdentity(architecture="Llama", hidden_size=2, num_layers=1)
    return Profile.coarse(name, [SteeringVector(0, np.ones(2))], model=model)


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_hostile_name_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(FormatError, match=r"allowed are 1 to 63|is reserved") as caught:
        named(name)
    assert len(str(caught.value)) < 500


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True, alphabet=st.characters(max_codepoint=127)))
def test_every_plain_name_but_none_is_allowed(name: str) -> None:
    if name != "none":
        assert named(name).name == name


@given(st.text(max_size=70))
def test_no_name_that_is_allowed_can_leave_its_folder(name: str) -> None:
    try:
        named(name)
    except FormatError:
        return
    assert name.isascii()
    assert name == name.lower()
    assert not set(name) & set("/\\\0\n :%")
    assert not name.startswith(".")
    assert 1 <= len(name) <= 63


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_an_alpha_range_exists_exactly_where_its_order_holds(low: float, default: float, high: float) -> None:
    if low <= default <= high:
        assert AlphaRange(min=low, default=default, max=high).default == default
    else:
        with pytest.raises(ValidationError):
            AlphaRange(min=low, default=default, max=high)


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), 1e3 + 1, True, "1"])
def test_an_alpha_range_is_finite_bounded_and_made_of_numbers(bound: object) -> None:
    with pytest.raises(ValidationError):
        AlphaRange(max=bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.5, 0, 1, 1.5, np.float32(0.25), Fraction(1, 2)])
def test_a_number_within_the_range_is_an_alpha(value: float) -> None:
    assert AlphaRange(min=-0.5, default=1, max=1.5).check(value) == float(value)


@pytest.mark.parametrize(
    "value",
    [-0.51, 1.51, float("nan"), float("inf"), -float("inf"), 10**400, True, "1", None, [1], {"alpha": 1}, 1j],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_number_within_the_range_is_an_error_that_names_the_range(value: object) -> None:
    with pytest.raises(AlphaError, match=r"a number from -0\.5 to 1\.5") as caught:
        AlphaRange(min=-0.5, default=1, max=1.5).check(value)
    assert caught.value.param == "steering.alpha"


@given(st.floats(-1e3, 1e3))
def test_a_strength_is_served_with_float32_s_precision_or_refused(alpha: float) -> None:
    allowed = AlphaRange(min=-1e3, max=1e3)
    served = float(np.float32(alpha))
    if alpha == 0 or (abs(alpha - served) <= abs(alpha) * 2.0**-24 and abs(alpha) >= 2.0**-126):
        assert allowed.check(alpha) == alpha
    else:
        with pytest.raises(AlphaError, match="nothing in float32"):
            allowed.check(alpha)


@pytest.mark.parametrize("alpha", [1e-46, -1e-46, 7e-46, 1e-50, 5e-324, 1e-40])
def test_a_strength_that_float32_has_no_room_for_is_refused(alpha: float) -> None:
    with pytest.raises(AlphaError, match=rf"alpha is {alpha:g}, which is nothing in float32"):
        AlphaRange(min=-1, max=1).check(alpha)


@pytest.mark.parametrize("alpha", [4.000000000001, 4.0000000000000009, 400000001])
def test_the_sentence_has_the_number_that_was_sent(alpha: float) -> None:
    with pytest.raises(AlphaError) as caught:
        AlphaRange(min=0.1, max=4).check(alpha)
    message = str(caught.value)
    assert float(message.removeprefix("alpha is ").split(";")[0]) == alpha
    assert message.endswith("allowed is a number from 0.1 to 4")


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.floats(-1e3, 1e3))
def test_the_dose_is_the_ratio_of_the_lengths_whatever_the_sign(vector: float, hidden: float, alpha: float) -> None:
    dose = Norms(vector=vector, hidden=hidden).dose(alpha)
    assert dose == pytest.approx(abs(alpha) * vector / hidden)
    assert Norms(vector=vector).dose(alpha) is None


@pytest.mark.parametrize(
    "gate",
    [
        {"max_distance": -0.1},
        {"max_distance": float("inf")},
        {"metric": "cosine", "max_distance": 2.1},
        {"metric": "manhattan"},
        {"scope": "word"},
        {"radius": 1.0},
    ],
    ids=str,
)
def test_a_gate_that_cannot_be_is_refused(gate: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Gate.model_validate(gate)


def test_a_layer_that_the_model_lacks_is_refused_with_those_it_has(model: ModelIdentity) -> None:
    with pytest.raises(FormatError, match=r"layer 3 does not exist; the base model has layers 0 to 2"):
        Profile.coarse("p", [SteeringVector(3, np.ones(4))], model=model)


def test_a_sequence_gate_works_with_answers_only(model: ModelIdentity) -> None:
    arrays = {0: (np.ones((1, 4)), np.ones((1, 4)))}
    Profile.fine("p", arrays, model=model, gate=Gate(scope="sequence"))
    with pytest.raises(FormatError, match=r'positions "answer" only'):
        Profile.fine("p", arrays, model=model, gate=Gate(scope="sequence"), positions="all")


def test_provenance_holds_any_json_and_nothing_else() -> None:
    evaluation = {"yes/no": {"before": 0.9, "flips": [1, 2]}, "note": None}
    assert Provenance(evaluation=evaluation).evaluation == evaluation  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Provenance(evaluation={"figure": object()})  # type: ignore[dict-item]
    with pytest.raises(ValidationError):
        Provenance(author="me")  # type: ignore[call-arg]
