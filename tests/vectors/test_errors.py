from __future__ import annotations

import pickle

import pytest

from trimtab.vectors import AlphaRange
from trimtab.vectors.errors import AlphaError, RequestError, TrimtabError, UnknownProfileError


def test_an_unknown_profile_names_the_nearest_and_all_that_are_loaded() -> None:
    error = UnknownProfileError("gender-neutra", ["safe", "gender-neutral"])
    assert str(error) == "unknown profile 'gender-neutra'; did you mean 'gender-neutral'? loaded: gender-neutral, safe"
    assert (error.name, error.known, error.suggestion) == (
        "gender-neutra",
        ("gender-neutral", "safe"),
        "gender-neutral",
    )
    assert error.param == "steering.profile"


def test_a_name_that_resembles_nothing_gets_no_suggestion() -> None:
    error = UnknownProfileError("zzz", ["safe"])
    assert error.suggestion is None
    assert str(error) == "unknown profile 'zzz'; loaded: safe"


def test_the_message_stays_short_whatever_a_stranger_sends() -> None:
    error = UnknownProfileError("x" * 10_000_000 + "\n", [f"p{i}" for i in range(5000)])
    assert len(str(error)) < 400
    assert "4980 more" in str(error)
    assert "\n" not in str(UnknownProfileError("a\nb", ["safe"]))


def alpha_error() -> RequestError:
    with pytest.raises(AlphaError) as caught:
        AlphaRange().check(9, param="steering.1.alpha")
    return caught.value


@pytest.mark.parametrize(
    "error",
    [UnknownProfileError("a", ["b"], param="model"), alpha_error(), RequestError("no", param="steering.unit")],
    ids=lambda error: type(error).__name__,
)
def test_a_request_error_keeps_everything_across_a_process_border(error: RequestError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(copy, TrimtabError)
