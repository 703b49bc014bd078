"""What the demo's figures stand on, apart from the server that answers."""

from __future__ import annotations

import pytest

from examples.tinyworld.demo.client import How
from examples.tinyworld.demo.profiles import VQA, profile_name
from examples.tinyworld.demo.vqa import _moved
from trimtab.offline.steering.operating_point import MOST_COLLATERAL, Point, best


def test_the_most_gaining_strength_among_the_clean_ones_is_chosen() -> None:
    curve = [Point(0.5, 0.4, 0.0), Point(1.0, 0.8, MOST_COLLATERAL), Point(1.5, 1.0, MOST_COLLATERAL + 1e-9)]
    assert best(curve).strength == 1.0


def test_of_equals_the_cleanest_and_then_the_weakest_is_chosen() -> None:
    curve = [Point(2.0, 1.0, 0.0), Point(1.0, 1.0, 0.0), Point(0.5, 1.0, 0.01)]
    assert best(curve).strength == 1.0


def test_where_no_strength_is_clean_the_cleanest_is_chosen() -> None:
    assert best([Point(0.5, 0.2, 0.3), Point(1.0, 1.0, 0.6)]).strength == 0.5


def test_the_moved_share_counts_exact_targets_among_exact_sources() -> None:
    pairs = [("yes", "no"), ("yes", "no no"), ("yes", "yes"), ("no", "no"), ("snow", "no")]
    assert _moved(pairs, "yes", "no") == pytest.approx(1 / 3)
    assert _moved([("snow", "no")], "yes", "no") == 0.0


def test_unsteered_questions_carry_no_field_at_all() -> None:
    assert (How().steering, How().extra) == (None, None)
    assert How("a", 0.5).steering == {"profile": "a", "alpha": 0.5}


def test_every_steering_and_kind_has_a_name_of_its_own() -> None:
    names = [profile_name(steering, kind, layer) for steering in VQA for kind in ("coarse", "fine") for layer in (3, 5)]
    assert len(set(names)) == len(names)
    assert names[1] == "yes-to-no-coarse-5"
