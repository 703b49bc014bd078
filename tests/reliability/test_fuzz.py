"""A part of the mutations of `make reliability`, and loaders with a hole, which the same mutations have to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.parts import fuzz


def test_no_spoiled_profile_is_served_as_what_it_is_not(tmp_path: Path) -> None:
    found = fuzz.run(tmp_path, 0.05)
    assert (found["accepted"], found["crashed"], found["wrong"]) == (0, 0, [])
    assert found["refused"] > found["valid"] > 0


@pytest.mark.parametrize("hole", ["trimtab.vectors.format.check_digest", "trimtab.vectors.profile._check_layer"])
def test_a_loader_that_leaves_out_a_check_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: str
) -> None:
    monkeypatch.setattr(hole, lambda *_: None)
    found = fuzz.run(tmp_path, 0.002)
    assert found["accepted"] > 0
    assert found["wrong"]
