"""The check that holds the demo's figures to the targets."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECK = Path(__file__).resolve().parents[1] / ".ci" / "check_demo.py"

Demo = dict[str, Any]


def row(steering: str, kind: str | None, layer: int | None, moved_share: float | None, **accuracy: float) -> Demo:
    steered = kind is not None
    return {
        "steering": steering,
        "kind": kind,
        "layer": layer,
        "alpha": 1.0 if steered else None,
        "accuracy": {"yes_no": 98.0, "number": 97.0, "other": 96.0} | accuracy,
        "delta_original": -40 if steered else None,
        "delta_target": 39 if steered else None,
        "moved_share": moved_share,
        "kv": "keyed" if layer == 2 else "shared",
    }


@pytest.fixture
def demo() -> Demo:
    """Figures that hold every target, some of them only just."""
    return {
        "vqa": [
            row("none", None, None, None),
            row("yes->no", "coarse", 5, 0.4, yes_no=60.0, number=50.0),
            row("yes->no", "fine", 2, 0.1, number=80.0),
            row("yes->no", "fine", 5, 0.95, yes_no=50.0, number=96.5),
            row("1->3", "fine", 5, 0.99, number=60.0, other=96.5),
            row("1->3", "logit_bias", None, 0.2, other=50.0),
            row("white->black", "fine", 5, 1.0, other=70.0),
        ],
        "gender": {
            "total": 192,
            "coarse": {"alpha": 1.0, "converted": 100, "deleted": 3, "other_facts_changed": 20},
            "fine": {"alpha": 1.0, "converted": 130, "deleted": 1, "other_facts_changed": 4},
        },
        "throughput": {"plain": 100.0, "steered": 95.0, "ratio": 0.94, "pairs": [0.9, 0.94, 0.95]},
    }


@pytest.fixture
def check(tmp_path: Path) -> Callable[[Demo], tuple[int, list[str]]]:
    def run(demo: Demo) -> tuple[int, list[str]]:
        path = tmp_path / "demo.json"
        path.write_text(json.dumps(demo))
        finished = subprocess.run([sys.executable, CHECK, path], capture_output=True, text=True)
        assert finished.stderr == ""
        return finished.returncode, finished.stdout.splitlines()

    return run


Check = Callable[[Demo], tuple[int, list[str]]]


def fails_with(sentence: str, outcome: tuple[int, list[str]]) -> bool:
    status, lines = outcome
    return status == 1 and lines == [f"missed: {sentence}"]


def test_figures_on_the_targets_pass(check: Check, demo: Demo) -> None:
    status, lines = check(demo)
    assert status == 0
    assert lines[0].endswith("demo.json holds every target")


@pytest.mark.parametrize("kind", ["yes_no", "number", "other"])
def test_a_poor_model_fails(kind: str, check: Check, demo: Demo) -> None:
    for each in demo["vqa"]:
        each["accuracy"][kind] = 94.9
    status, lines = check(demo)
    assert status == 1
    assert f"missed: unsteered accuracy on {kind} is 94.90, below 95.0" in lines


def test_too_few_moved_answers_fail(check: Check, demo: Demo) -> None:
    demo["vqa"][3]["moved_share"] = 0.949
    assert fails_with("yes->no, fine, layer 5: moved_share is 0.949, below 0.95", check(demo))


def test_a_moved_share_that_was_not_measured_fails(check: Check, demo: Demo) -> None:
    demo["vqa"][3]["moved_share"] = None
    assert fails_with("yes->no, fine, layer 5: moved_share is None, below 0.95", check(demo))


@pytest.mark.parametrize("accuracy", [95.4, 96.6])
def test_a_change_of_another_answer_type_fails_either_way(accuracy: float, check: Check, demo: Demo) -> None:
    demo["vqa"][4]["accuracy"]["other"] = accuracy
    change = accuracy - 96
    sentence = f"1->3, fine, layer 5: accuracy on other changes by {change:+.2f} points, more than 0.5"
    assert fails_with(sentence, check(demo))


def test_a_steering_without_a_row_at_the_last_layer_fails(check: Check, demo: Demo) -> None:
    demo["vqa"][6]["layer"] = 4
    assert fails_with("white->black has no row of kind fine at the last layer", check(demo))


def test_fine_that_hardly_beats_coarse_fails(check: Check, demo: Demo) -> None:
    demo["gender"]["fine"]["converted"] = 129
    assert fails_with("gender: fine converts 129 words, fewer than 1.3 times the 100 of coarse", check(demo))


def test_no_conversion_at_all_fails(check: Check, demo: Demo) -> None:
    demo["gender"]["fine"]["converted"] = demo["gender"]["coarse"]["converted"] = 0
    assert fails_with("gender: fine converts 0 words, fewer than 1.3 times the 0 of coarse", check(demo))


def test_slow_steering_fails(check: Check, demo: Demo) -> None:
    demo["throughput"]["pairs"] = [0.9, 0.949]
    assert fails_with("throughput: the ratios of all pairs are below 0.95: [0.9, 0.949]", check(demo))


def test_a_missing_baseline_fails(check: Check, demo: Demo) -> None:
    del demo["vqa"][0]
    assert fails_with("vqa has 0 rows without steering; one is needed to compare with", check(demo))


@pytest.mark.parametrize("key", ["vqa", "gender", "throughput"])
def test_a_missing_part_fails(key: str, check: Check, demo: Demo) -> None:
    del demo[key]
    assert fails_with(f"{key}: Field required", check(demo))


@pytest.mark.parametrize("key", ["steering", "kind", "layer", "alpha", "accuracy", "delta_target", "moved_share", "kv"])
def test_a_missing_key_of_a_row_fails(key: str, check: Check, demo: Demo) -> None:
    del demo["vqa"][3][key]
    assert fails_with(f"vqa.3.{key}: Field required", check(demo))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.99"])
def test_a_figure_that_is_not_a_number_fails(value: object, check: Check, demo: Demo) -> None:
    demo["throughput"]["ratio"] = value
    status, lines = check(demo)
    assert status == 1
    assert len(lines) == 1


def test_a_missing_file_fails(tmp_path: Path) -> None:
    finished = subprocess.run([sys.executable, CHECK, tmp_path / "none.json"], capture_output=True, text=True)
    assert finished.returncode == 1
    assert "`make demo` writes it" in finished.stdout
