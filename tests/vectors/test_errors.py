from __future__ import annotations

import difflib
import pickle
import random
import string

import pytest

from trimtab.vectors import AlphaRange
from trimtab.vectors.asked import parse
from trimtab.vectors.errors import (
    AlphaError,
    FormatError,
    RequestError,
    TrimtabError,
    UnknownProfileError,
    printable,
)


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
    [
        UnknownProfileError("a", ["b"], param="model"),
        alpha_error(),
        RequestError("no", param="steering.unit", status=503),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_request_error_keeps_everything_across_a_process_border(error: RequestError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert isinstance(copy, TrimtabError)


LETTERS = random.Random(0)
NAMES = tuple("".join(LETTERS.choices(string.ascii_lowercase, k=12)) for _ in range(10_000))


@pytest.mark.parametrize("at", range(12))
@pytest.mark.parametrize("slip", ["put", "drop", "change"])
def test_one_slip_among_ten_thousand_profiles_finds_the_name(at: int, slip: str) -> None:
    name = NAMES[1000 + at]
    typed = {"put": f"{name[:at]}-{name[at:]}", "drop": name[:at] + name[at + 1 :]}.get(slip)
    assert UnknownProfileError(typed or f"{name[:at]}-{name[at + 1 :]}", NAMES).suggestion == name


def test_a_suggestion_costs_the_same_for_a_hundred_profiles_and_for_ten_thousand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    original = difflib.get_close_matches

    def counted(word: str, possibilities: list[str], n: int) -> list[str]:
        compared.append(len(possibilities))
        return original(word, possibilities, n)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    for count in (100, len(NAMES)):
        UnknownProfileError("gender-safe", NAMES[:count])
    assert max(compared) <= 128


def test_a_lone_surrogate_of_a_client_survives_as_its_escape() -> None:
    for error in (UnknownProfileError("\ud800", ["safe"]), RequestError("\udfff", param="\ud800")):
        f"{error} {error.param}".encode()
        assert r"\ud" in f"{error} {error.param}"


@pytest.mark.parametrize("obeyed", ["\x1b[2J", "\x9b31m", "a\rb", "a\nb", "\u202egnp", "\x00", "\ud800"])
def test_no_message_carries_what_a_terminal_obeys(obeyed: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse({f"a{obeyed}b": 1})
    assert obeyed not in caught.value.param
    for error in (FormatError(f"{obeyed}/profile.json: is missing"), UnknownProfileError(obeyed, [])):
        said = str(error)
        assert obeyed not in said
        assert said.isprintable()
        said.encode()  # half a surrogate pair has no UTF-8


@pytest.mark.parametrize("text", ["α = 1, „golden“", "café", "日本", "می‌خواهم", "👩‍🔬", "[/bold]"])
def test_plain_text_of_any_language_stays_as_it_is(text: str) -> None:
    assert printable(text) == text == str(FormatError(text))
