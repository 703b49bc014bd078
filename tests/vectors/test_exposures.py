"""The lines of an exposure log: written and read alike, and a unit by its pseudonym only."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.vectors.errors import FormatError, TrimtabError
from trimtab.vectors.experiments import Closing, Exposure, UnitKey, read_lines

KEY = "k" * 32
EXPOSURE = Exposure(
    timestamp="2026-11-27T10:00:00.123Z",
    exposure_id="exp-" + "0" * 32,
    experiment="gender-alpha",
    seed="ga-1",
    variation="a08",
    unit=UnitKey(KEY).pseudonym("user-42"),
    unit_source="steering.unit",
    assigned="a08",
    served="a08",
    profile="gender-neutral",
    alpha=0.8,
    digest="f" * 64,
    plan="0" * 64,
    replica="one",
    request_id="chatcmpl-1",
)
CLOSING = Closing(timestamp="2026-11-27T10:00:01.123Z", exposure_id=EXPOSURE.exposure_id, finish_reason="stop")


def test_a_line_is_read_as_it_was_written_and_more_than_is_known_is_left_out() -> None:
    for one in (EXPOSURE, CLOSING):
        assert type(one).from_line(one.to_line()) == one
        more = {**json.loads(one.to_line()), "of_a_later_version": [1]}
        assert type(one).from_line(json.dumps(more)) == one
    for bad in ("", "{", "[]", CLOSING.to_line(), EXPOSURE.to_line().replace('"exp-', '"id-')):
        with pytest.raises(FormatError):
            Exposure.from_line(bad)


def test_a_log_is_read_from_its_oldest_file_on_without_a_line_that_was_cut_short(tmp_path: Path) -> None:
    def numbered(number: int) -> Exposure:
        return EXPOSURE.model_copy(update={"request_id": str(number)})

    for name, numbers in ((".10", (1, 2)), (".9", (3,)), ("", (4, 5))):
        lines = "".join(numbered(number).to_line() + "\n" for number in numbers)
        (tmp_path / f"exposures.jsonl{name}").write_text(lines + CLOSING.to_line() + "\n")
    with (tmp_path / "exposures.jsonl").open("a") as file:
        file.write('{"event": "of a later version"}\n' + EXPOSURE.to_line()[:50])
    (tmp_path / ".exposures.jsonl.lock").touch()
    found = list(read_lines(tmp_path))
    assert [one.request_id for one in found if isinstance(one, Exposure)] == ["1", "2", "3", "4", "5"]
    assert len(found) == 8
    assert len(list(read_lines(tmp_path / "exposures.jsonl"))) == 3
    (tmp_path / "exposures.jsonl").write_text("no JSON\n")
    with pytest.raises(FormatError, match=r"exposures\.jsonl, line 1"):
        list(read_lines(tmp_path))
    with pytest.raises(FormatError):
        list(read_lines(tmp_path / "none.jsonl"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_pseudonym_is_a_hash_with_the_key(unit: str, other: str) -> None:
    key = UnitKey(KEY)
    expected = hmac.new(KEY.encode(), unit.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    assert key.pseudonym(unit) == expected[:32]
    assert (key.pseudonym(unit) == key.pseudonym(other)) == (unit == other)
    assert UnitKey(KEY + "k").pseudonym(unit) != key.pseudonym(unit)


def test_a_key_is_long_and_shown_nowhere() -> None:
    with pytest.raises(TrimtabError, match="has 31 characters; it needs 32"):
        UnitKey("k" * 31)
    assert KEY not in repr(UnitKey(KEY))
    assert UnitKey(KEY).fingerprint != UnitKey(KEY + "k").fingerprint
