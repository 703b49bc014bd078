"""What may be written in a `steering` field, what it stands for, and the sentence that answers everything else."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.request import Asked, Steering, choose, parse, resolve
from trimtab.vectors import Profile, Registry
from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError


@pytest.mark.parametrize("value", [None, "none"])
def test_nothing_and_none_are_unsteered(value: object) -> None:
    assert parse(value) is None


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("polite", Asked("polite")),
        ({"profile": "polite"}, Asked("polite")),
        ({"profile": "polite", "alpha": 0.8}, Asked("polite", 0.8)),
        ([{"profile": "polite", "alpha": 0}], Asked("polite", 0)),
        (["polite"], Asked("polite")),
        (({"profile": "polite"},), Asked("polite")),
    ],
)
def test_the_forms_of_a_wish(value: object, asked: Asked) -> None:
    assert parse(value) == asked


@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        (True, "steering", r'steering must be "NAME", \{.*\} or "none", not bool'),
        (1.5, "steering", "not float"),
        (b"polite", "steering", "not bytes"),
        ([], "steering", "a list of 0 is not served: one profile a request"),
        ([{"profile": "a"}, {"profile": "b"}], "steering", "a list of 2 is not served: one profile a request"),
        (["none"], "steering", '"none" stands alone, not in a list'),
        ([None], "steering", '"none" stands alone, not in a list'),
        ([["polite"]], "steering", "a list in a list"),
        ({}, "steering.profile", "steering.profile must be the name of a profile"),
        ({"alpha": 1.0}, "steering.profile", "must be the name of a profile"),
        ({"profile": None}, "steering.profile", "must be the name of a profile"),
        ({"profile": ["polite"]}, "steering.profile", "must be the name of a profile"),
        ({"profile": "none"}, "steering.profile", '"none" takes no strength: write "steering": "none"'),
        ({"profile": "polite", "alpha": None}, "steering.alpha", "must be a number; leave it out for the default"),
        (
            {"profile": "polite", "scale": 2},
            "steering.scale",
            "unknown field 'scale' in steering; allowed: profile, alp",
        ),
        ({"profile": "polite", 3: 2}, "steering.3", "unknown field '3' in steering"),
        ({"profile": "polite", "x" * 999: 2}, "steering." + "x" * 80, "unknown field 'x{80}' in steering"),
    ],
)
def test_any_other_form_is_refused_with_its_field(value: object, param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(value)
    assert caught.value.param == param


def test_a_list_that_is_nested_without_end_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(RequestError, match="a list in a list"):
        parse(value)


words = st.sampled_from(["profile", "alpha", "none", "polite", "brief", "steering", ""]) | st.text(max_size=5)
jsonlike = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(value=jsonlike)
def test_every_value_is_unsteered_or_a_wish_or_a_request_error(value: object) -> None:
    try:
        asked = parse(value)
    except RequestError:
        return
    if asked is None:
        assert value in (None, "none")
    else:
        inner = value[0] if isinstance(value, list) else value
        assert inner in (asked.profile, {"profile": asked.profile}, {"profile": asked.profile, "alpha": asked.alpha})


@given(asked=st.builds(Asked, words, jsonlike))
def test_every_wish_is_a_registered_profile_in_its_range_or_a_request_error(asked: Asked, registry: Registry) -> None:
    try:
        profile, alpha = choose(asked, registry)
    except (UnknownProfileError, AlphaError):
        return
    assert profile.name == asked.profile
    assert profile.manifest.alpha.min <= alpha <= profile.manifest.alpha.max


def test_the_strength_is_the_profiles_default_unless_one_is_asked_for(registry: Registry, coarse: Profile) -> None:
    assert choose(Asked("polite"), registry) == (coarse, 0.5)
    assert choose(Asked("polite", 0), registry) == (coarse, 0.0)
    assert choose(Asked("polite", -1), registry) == (coarse, -1.0)


@pytest.mark.parametrize("alpha", [2.01, -1.01, float("nan"), float("inf"), True, "1", [1], {}, 10**400])
def test_a_strength_that_is_no_number_in_range_is_refused(alpha: object, registry: Registry) -> None:
    with pytest.raises(AlphaError, match=r"allowed is a number from -1 to 2|must be a number from -1 to 2") as caught:
        choose(Asked("polite", alpha), registry)
    assert caught.value.param == "steering.alpha"


def test_an_unknown_profile_is_refused_with_the_nearest_name(registry: Registry) -> None:
    with pytest.raises(UnknownProfileError, match=r"'pollite'; did you mean 'polite'\?") as caught:
        choose(Asked("pollite"), registry)
    assert caught.value.param == "steering.profile"


def test_a_server_without_profiles_says_so() -> None:
    with pytest.raises(RequestError, match=r"started without steering profiles.*--steering-profiles DIR") as caught:
        resolve(Asked("polite"), None, prompt_length=3)
    assert caught.value.param == "steering"


@given(length=st.integers(1, 10**6))
def test_answer_begins_at_the_last_prompt_position_and_all_at_the_first(length: int, registry: Registry) -> None:
    assert resolve(Asked("polite"), registry, prompt_length=length).first == length - 1
    assert resolve(Asked("gender-neutral"), registry, prompt_length=length).first == 0


def test_what_is_resolved_is_told_by_the_profile(registry: Registry, coarse: Profile) -> None:
    steering = resolve(Asked("polite", 1.25), registry, prompt_length=7)
    assert (steering.profile, steering.digest, steering.alpha) == ("polite", coarse.digest, 1.25)


@pytest.mark.parametrize("name", ["polite", "gender-neutral", "brief"])
def test_what_is_resolved_survives_the_wire(name: str, registry: Registry) -> None:
    steering = resolve(Asked(name, 0.1), registry, prompt_length=7)
    assert Steering.of_wire(json.loads(json.dumps(steering.to_wire()))) == steering
    assert pickle.loads(pickle.dumps(steering)) == steering
