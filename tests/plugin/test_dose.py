"""What a request may add up to: over all its layers and profiles, not the largest of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.small_model import Decoder, engine_of
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.arming import arm
from trimtab.plugin.requests.dose import addition, check_dose, largest_addition
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, save_profile
from trimtab.vectors.errors import RequestError

MODEL = ModelIdentity(
    architecture="LlamaForCausalLM", hidden_size=8, num_layers=6, fingerprint="sampled-sha256:" + "0f" * 32
)


def profile(name: str, norm: float, layers: int, most: float = 100.0) -> Profile:
    vectors = [SteeringVector(layer, np.full(8, norm / np.sqrt(8))) for layer in range(layers)]
    return Profile.coarse(name, vectors, model=MODEL, alpha=AlphaRange(min=-most, max=most))


def test_six_layers_of_which_each_alone_would_pass_are_refused_together() -> None:
    most = largest_addition(torch.float16)
    check_dose([(profile("one", 160, 1), 100.0)], most)
    with pytest.raises(RequestError, match=r"of six may add 96000 to the stream.*allowed is 16376") as caught:
        check_dose([(profile("six", 160, 6), 100.0)], most)
    assert caught.value.param == "steering.alpha"
    check_dose([(profile("six", 160, 6), 17.0)], most)


def test_profiles_that_are_added_up_count_together_whatever_their_signs() -> None:
    most = largest_addition(torch.float16)
    one, other = profile("one", 100, 1), profile("other", 100, 1)
    for alpha in (100.0, -100.0):
        check_dose([(one, alpha)], most)
        with pytest.raises(RequestError, match="of one, other may add 20000"):
            check_dose([(one, alpha), (other, 100.0)], most)


def test_a_dtype_with_room_takes_it() -> None:
    check_dose([(profile("six", 160, 6), 100.0)], largest_addition(torch.bfloat16))


@given(
    norms=st.lists(st.floats(0.1, 1e3), min_size=1, max_size=6),
    alpha=st.floats(-100, 100),
    h=st.floats(-(2.0**14), 2.0**14),
)
def test_no_number_of_the_stream_gets_more_than_the_bound(norms: list[float], alpha: float, h: float) -> None:
    vectors = [SteeringVector(layer, np.eye(8)[0] * norm) for layer, norm in enumerate(norms)]
    one = Profile.coarse("p", vectors, model=MODEL, alpha=AlphaRange(min=-100, max=100))
    added = sum(alpha * norm for norm in norms)
    assert abs(added) <= addition(one, alpha) * (1 + 1e-6)
    try:
        check_dose([(one, alpha)], largest_addition(torch.float16))
    except RequestError:
        return
    assert np.isfinite(np.float16(h + added))


def test_a_profile_that_may_add_too_much_over_its_layers_stops_the_start(model_folder: Path, tmp_path: Path) -> None:
    """Where no layer alone would."""
    model = ModelIdentity.of(model_folder)
    for name, layers, refused in (("one", 1, False), ("three", DEPTH, True)):
        vectors = [SteeringVector(layer, np.full(SIZE, 60.0)) for layer in range(layers)]
        strong = Profile.coarse(name, vectors, model=model, alpha=AlphaRange(min=-100, max=100))
        save_profile(strong, tmp_path / name / name)
        decoder = Decoder()
        engine = engine_of(tmp_path / name, model_folder, decoder)
        engine.model_config.dtype = torch.float16
        if refused:
            with pytest.raises(StartupError, match=r"may add 36000, too much for torch\.float16"):
                arm(decoder, engine)
        else:
            arm(decoder, engine)
