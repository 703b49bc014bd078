"""What may be written in a `steering` field: the same for the server, a client and a command line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.vectors.asked import LONGEST_UNIT, MOST_PROFILES, Asked, Wish, parse, read_text, split_model, wish_of
from trimtab.vectors.errors import RequestError

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("value", [None, "none"])
def test_nothing_and_none_are_unsteered(value: object) -> None:
    assert parse(value) == ()


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("polite", [Asked("polite")]),
        ({"profile": "polite"}, [Asked("polite")]),
        ({"profile": "polite", "alpha": 0.8}, [Asked("polite", 0.8)]),
        ([{"profile": "polite", "alpha": 0}], [Asked("polite", 0)]),
        (["polite"], [Asked("polite")]),
        (({"profile": "polite"},), [Asked("polite")]),
        ("polite@0.8", [Asked("polite", 0.8)]),
        ("polite@-2", [Asked("polite", -2)]),
        ("polite@1e-3", [Asked("polite", 0.001)]),
        (f"polite@sha256:{DIGEST[:12]}", [Asked("polite", version=DIGEST[:12])]),
        (f"polite@sha256:{DIGEST}", [Asked("polite", version=DIGEST)]),
        ({"profile": f"polite@sha256:{DIGEST}", "alpha": 0.8}, [Asked("polite", 0.8, DIGEST)]),
        (["polite@0.8", {"profile": "brief@2"}], [Asked("polite", 0.8), Asked("brief", 2)]),
        (
            ["b", {"profile": "a", "alpha": 2}, "d", {"profile": "c"}],
            [Asked("b"), Asked("a", 2), Asked("d"), Asked("c")],
        ),
    ],
)
def test_the_forms_of_a_wish(value: object, asked: list[Asked]) -> None:
    assert parse(value) == tuple(asked)


@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        (True, "steering", r'steering must be "NAME", \{.*\}, a list of up to 4 of these, or "none", not bool'),
        (1.5, "steering", "not float"),
        (b"polite", "steering", "not bytes"),
        ([], "steering", "steering is a list of 0; allowed are 1 to 4 profiles"),
        (["a", "b", "c", "d", "e"], "steering", "steering is a list of 5; allowed are 1 to 4 profiles"),
        (["a", "b", {"profile": "a", "alpha": 2}], "steering", "steering names 'a' twice; name it once"),
        (["none"], "steering", '"none" stands alone, not in a list'),
        (["polite", "none"], "steering", '"none" stands alone, not in a list'),
        ([{"profile": "none"}, "polite"], "steering.profile", '"none" takes no strength'),
        ([None], "steering", "not NoneType"),
        ([["polite"]], "steering", "not list"),
        (["polite", {"profile": "brief", "alhpa": 1}], "steering.alhpa", "unknown field 'alhpa' in steering"),
        ({}, "steering.profile", "steering.profile must be the name of a profile"),
        ("@0.8", "steering.profile", "the name is empty"),
        ("none@0.8", "steering.profile", '"none" takes no strength'),
        ({"profile": "none@1"}, "steering.profile", '"none" takes no strength'),
        ("polite@", "steering.alpha", "is neither a strength nor a version"),
        ("polite@loud", "steering.alpha", "'loud', after the @ in 'polite@loud', is neither a strength nor a version"),
        ("polite@nan", "steering.alpha", "is neither"),
        ("polite@inf", "steering.alpha", "is neither"),
        ("polite@1_0", "steering.alpha", "is neither"),
        ("polite@ 1", "steering.alpha", "is neither"),
        ("polite@0.8@0.8", "steering.alpha", "is neither"),
        (DIGEST[:12].join(("polite@", "")), "steering.alpha", "is neither"),
        (f"polite@sha256:{DIGEST[:11]}", "steering.profile", "is no version of a profile; write sha256: and the first"),
        (f"polite@sha256:{DIGEST}0", "steering.profile", "is no version"),
        (f"polite@sha256:{DIGEST[:12].upper()}", "steering.profile", "is no version"),
        (f"polite@sha256:{DIGEST[:12]}@0.8", "steering.profile", "is no version"),
        ({"profile": "polite@0.8", "alpha": 0.8}, "steering.alpha", "has two strengths"),
        (["polite", "polite@0.8"], "steering", "names 'polite' twice"),
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
        ({"profile": "polite", "x" * 999: 2}, "steering." + "x" * 80, "unknown field 'x{80}…' in steering"),
    ],
)
def test_any_other_form_is_refused_with_its_field(value: object, param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(value)
    assert caught.value.param == param


def test_a_list_that_is_nested_without_end_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(RequestError, match="not list"):
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
    if value in (None, "none"):
        assert asked == ()
        return
    wishes = value if isinstance(value, list) else [value]
    assert len({one.profile for one in asked}) == len(asked) == len(wishes) <= MOST_PROFILES
    for inner, one in zip(wishes, asked, strict=True):
        assert inner in (one.profile, {"profile": one.profile}, {"profile": one.profile, "alpha": one.alpha})


@given(value=jsonlike)
def test_a_command_line_takes_what_the_field_takes(value: object) -> None:
    """One grammar: what the server refuses never leaves a client, and a client refuses nothing that is served."""
    text = json.dumps(value)
    if not isinstance(value, str | dict | list):
        return  # a bare word of a command line is a name
    try:
        asked = parse(json.loads(text))
    except RequestError:
        with pytest.raises(RequestError):
            read_text(text)
        return
    if "NaN" not in text and "Infinity" not in text:  # which JSON does not have
        assert parse(read_text(text)) == asked


# What the two parsers that there once were did not agree on.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"profile": "p", "alpha": null}', "leave it out for the default"),
        ('{"profile": "p", "alpha": "1"}', "must be a number, not str"),
        ('{"profile": "p", "alpha": true}', "must be a number, not bool"),
        ('["p", "none"]', '"none" stands alone'),
        ('{"profile": "none"}', '"none" takes no strength'),
        ('["p", {"profile": "p", "alpha": 2}]', "names 'p' twice"),
        ("[]", "a list of 0"),
        ('["a", "b", "c", "d", "e"]', "a list of 5"),
        ('""', "the name is empty"),
        ("", "the name is empty"),
        ('{"profile": ""}', "the name is empty"),
    ],
)
def test_what_is_refused_is_refused_on_both_sides(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_text(text)
    with pytest.raises(RequestError, match=message):
        parse(json.loads(text or '""'))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("polite", "polite"),
        (" polite ", "polite"),
        ("none", "none"),
        ('"polite"', "polite"),
        ('{"profile": "polite", "alpha": -0.5}', {"profile": "polite", "alpha": -0.5}),
        ('["a", {"profile": "b"}]', ["a", {"profile": "b"}]),
    ],
)
def test_a_word_is_a_name_and_the_rest_is_json(text: str, value: object) -> None:
    assert read_text(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not JSON"),
        ('{"profile": "p", "alpha": NaN}', "NaN is no number of JSON"),
        ('{"profile": "p", "alpha": -Infinity}', "-Infinity is no number of JSON"),
        ('{"profile": "p", "alpha": 1e999}', "1e999 is no number of JSON"),
        ('{"profile": "p", "alpha": 1, "alpha": 2}', "has 'alpha' twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_text_that_is_no_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_text(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [{"\ud800": 1}, {"profile": "p", "x\udfff": 1}, ["\ud800", "\ud800"]])
def test_a_lone_surrogate_comes_back_as_its_escape(value: object) -> None:
    with pytest.raises(RequestError, match=r"\\ud") as caught:
        parse(value)
    f"{caught.value} {caught.value.param}".encode()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("base:polite", ("base", "polite")),
        ("base:polite@0.8", ("base", "polite@0.8")),
        ("base:none", ("base", "none")),
        ("base:", ("base", "")),
        ("base:v2:polite", ("base:v2", "polite")),  # the longest name
        ("org/base@1:polite", ("org/base@1", "polite")),
        ("base:v2", None),  # a name itself
        ("base:taken", None),
        ("base", None),
        ("other:polite", None),
        ("polite", None),
        ("", None),
    ],
)
def test_a_model_with_a_profile_is_split_after_the_name_of_a_served_model(
    model: str, found: tuple[str, str] | None
) -> None:
    assert split_model(model, ["base", "base:v2", "base:taken", "org/base@1"]) == found


@given(st.sampled_from(["polite", "a.b_c-1"]), st.floats(allow_nan=False, allow_infinity=False))
def test_a_strength_after_the_name_is_the_same_number_as_in_the_object(name: str, alpha: float) -> None:
    assert parse(f"{name}@{alpha!r}") == parse({"profile": name, "alpha": alpha})


@pytest.mark.parametrize(
    ("value", "wish"),
    [
        (None, Wish()),
        ("none", Wish(())),
        ("polite@2", Wish((Asked("polite", 2),))),
        ({"experiment": "e"}, Wish(experiment="e")),
        ({"experiment": "e", "unit": "u", "arm": "a"}, Wish(experiment="e", unit="u", arm="a")),
        ({"unit": "u"}, Wish(unit="u")),
        ({"profile": "polite", "alpha": 2, "unit": "u"}, Wish((Asked("polite", 2),), unit="u")),
    ],
)
def test_a_wish_is_all_that_a_request_says(value: object, wish: Wish) -> None:
    assert wish_of(value) == wish


@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        ({"experiment": "e", "profile": "polite"}, "steering.profile", "beside an experiment"),
        ({"experiment": "e", "alpha": 1}, "steering.alpha", "beside an experiment"),
        ({"unit": "u", "arm": "a"}, "steering.arm", "is of an experiment"),
        ({"unit": 42}, "steering.unit", "must be text"),
        ({"unit": " "}, "steering.unit", "must be text"),
        ({"unit": "u" * (LONGEST_UNIT + 1)}, "steering.unit", "1 to 512 characters"),
        ({"experiment": None}, "steering.experiment", "must be text"),
        ({"unit": "u", "profle": "p"}, "steering.profle", "unknown field"),
        ([{"experiment": "e"}], "steering.experiment", "cannot be used here"),
        ([{"profile": "p", "unit": "u"}], "steering.unit", "cannot be used here"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(value: object, param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        wish_of(value)
    assert caught.value.param == param
