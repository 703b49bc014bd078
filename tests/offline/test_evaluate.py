"""`trimtab evaluate` as it is typed: tinyworld's split in each form, against an endpoint that knows the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from examples.tinyworld.ask import CAPTION_PROMPT
from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.formats import FORMATS
from examples.tinyworld.words import neutralised
from tests.offline.fake_endpoint import FakeEndpoint, picture_of, question_of
from trimtab.offline.cli.app import app
from trimtab.offline.findings import AnswersFound, TableFound, read_findings

PROMPTS = {"vqav2": "{question}", "coco": CAPTION_PROMPT, "pope": "{question}", "mm-safetybench": "{question}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small split in each form."""
    house = tmp_path_factory.mktemp("formats")
    write_split(house / "split", "dev", 6, seed=5)
    for name, write in FORMATS.items():
        (house / name).mkdir()
        write(house / name, house / "split", read_split(house / "split"))
    return house


@pytest.fixture(scope="module")
def server(house: Path) -> Iterator[FakeEndpoint]:
    """It knows the right answer to each question about each picture; steered, it says no for yes, and is neutral."""
    from trimtab.offline.evaluation.data_url import data_url

    known = {
        (one.question, data_url(house / "split" / one.image)): one.answer for one in read_split(house / "split")
    } | {
        (one["text"], data_url(house / "pope" / "images" / one["image"])): one["label"]
        for path in (house / "pope").glob("*.json")
        for one in map(json.loads, path.read_text().splitlines())
    }

    def reply(body: dict[str, Any]) -> str:
        answer = str(known[question_of(body), picture_of(body)])
        if not body.get("steering"):
            return answer
        return neutralised(answer) if question_of(body) == CAPTION_PROMPT else ("no" if answer == "yes" else answer)

    running = FakeEndpoint(reply)
    yield running
    running.stop()


def evaluate(server: FakeEndpoint, house: Path, format: str, out: Path, *more: object) -> Result:
    arguments = ("--base-url", server.url, "--model", "m", "--data", house / format, "--format", format, "--out", out)
    return CliRunner().invoke(app, ["evaluate", *map(str, (*arguments, "--prompt", PROMPTS[format], *more))])


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def figures(out: Path) -> dict[str, float]:
    found = results(out)
    rates: dict[str, float] = {name: one["value"] for name, one in found["measured"].items()}
    return {**rates, **found["plain"]}


def test_right_answers_get_the_best_figures_in_every_form(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        result = evaluate(server, house, format, tmp_path / format)
        assert result.exit_code == 0, result.output
        assert str(tmp_path / format / "results.json") in result.stdout
    vqa, coco, pope, safety = (figures(tmp_path / format) for format in FORMATS)
    assert {vqa["official, all"], vqa["min(1, n/3), all"]} == {1}
    assert coco["BLEU-4"] == pytest.approx(1)
    assert coco["CIDEr"] == pytest.approx(10)
    assert {pope[f"F1, {split}"] for split in ("random", "popular", "adversarial")} == {1}
    assert (safety["attack success, all"], safety["over-refusal on benign questions"]) == (0, 0)


def test_a_steered_run_is_set_beside_the_unsteered_one(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "vqav2", plain).exit_code == 0
    more = ("--steering", "p", "--against", plain, "--map", "yes=no")
    assert evaluate(server, house, "vqav2", steered, *more).exit_code == 0
    found = results(steered)
    yes = sum(one == "yes" for one, _, n in found["conversions"] for _ in range(n))
    assert found["flips"]["turned"]["value"] == 1
    assert found["flips"]["off_target"]["value"] == 0
    assert found["occurrences"]["yes"]["before"]["exact"] == yes > 0 == found["occurrences"]["yes"]["after"]["exact"]
    assert found["served"] == {"profile": "p", "alpha": "1.0", "digest": server.digest}
    written = read_findings(steered)
    flow, table = written["answers-vqav2"], written["table-vqav2"]
    assert isinstance(flow, AnswersFound)
    assert isinstance(table, TableFound)
    assert ("yes", "no", yes) in flow.flow
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_captions_made_neutral_are_counted_as_converted(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "coco", plain).exit_code == 0
    assert evaluate(server, house, "coco", steered, "--steering", "p", "--against", plain).exit_code == 0
    change = results(steered)["change"]
    assert change["gendered captions converted"]["value"] == 1
    assert change["gendered captions converted"]["n"] > 0


def test_runs_of_different_questions_are_not_compared(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    assert evaluate(server, house, "vqav2", tmp_path / "few", "--limit", 5).exit_code == 0
    result = evaluate(server, house, "vqav2", tmp_path / "all", "--against", tmp_path / "few")
    assert result.exit_code == 1
    assert "differ in nothing but the steering" in result.stderr


def test_pictures_that_are_missing_are_counted(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    FORMATS["pope"](_made(folder / "pope"), house / "split", read_split(house / "split"))
    first = sorted((folder / "pope" / "images").iterdir())[0]
    first.unlink()
    result = evaluate(server, folder, "pope", tmp_path / "out")
    assert result.exit_code == 0, result.output
    skipped = results(tmp_path / "out")["skipped"]["the picture is missing"]
    assert f"skipped {skipped}: the picture is missing" in result.stderr


def test_equal_runs_write_equal_results(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert evaluate(server, house, "vqav2", tmp_path / name).exit_code == 0
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--steering", '{"profil": "p"}'), "unknown field 'profil' in steering"),
        (("--steering", "[1"), "is not JSON"),
        (("--api-key", "NOT_SET_ANYWHERE"), "is not set"),
        (("--limit", "0"), "must be 1 or more"),
        (("--refusal", "never"), "is for mm-safetybench"),
        (("--map", "yes"), "cannot read the pair"),
    ],
)
def test_settings_that_cannot_be_had_are_one_sentence(
    server: FakeEndpoint, house: Path, tmp_path: Path, more: tuple[str, str], sentence: str
) -> None:
    before = len(server.seen)
    result = evaluate(server, house, "vqav2", tmp_path / "out", *more)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(server.seen) == before


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
