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
    arguments = (format, house / format, "--base-url", server.url, "--served-model-name", "m", "--out", out)
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


def test_what_turned_heads_the_table_and_the_page(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "vqav2", plain).exit_code == 0
    more = ("--steering", "p", "--against", plain, "--map", "yes=no")
    assert evaluate(server, house, "vqav2", steered, *more).exit_code == 0
    written = read_findings(steered)
    table, flow = written["table-vqav2"], written["answers-vqav2"]
    assert isinstance(table, TableFound)
    assert [str(row[0]).partition(":")[0] for row in table.rows[:3]] == ["turned", "strayed", "off target"]
    assert flow.note.startswith("turned: source answers that became their target 100.0 %")


@pytest.mark.parametrize(
    ("format", "mapping"),
    [("vqav2", "Yes=No."), ("coco", "man=person"), ("coco", "gendered=neutral"), ("pope", "yes=no")],
)
def test_a_mapping_is_read_as_the_answers_are(
    server: FakeEndpoint, house: Path, tmp_path: Path, format: str, mapping: str
) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, format, plain).exit_code == 0
    result = evaluate(server, house, format, steered, "--steering", "p", "--against", plain, "--map", mapping)
    assert result.exit_code == 0, result.output
    found = results(steered)["flips"]
    assert (found["turned"]["value"], found["strayed"]["value"]) == (1, 0)
    assert found["turned"]["n"] > 0
    assert found["off_target"]["value"] == 0


def test_a_number_word_is_mapped_as_its_number(house: Path, tmp_path: Path) -> None:
    counting = FakeEndpoint(lambda body: "Three." if body.get("steering") else "two")
    try:
        assert evaluate(counting, house, "vqav2", tmp_path / "plain").exit_code == 0
        more = ("--steering", "p", "--against", tmp_path / "plain", "--map", "two=three")
        assert evaluate(counting, house, "vqav2", tmp_path / "steered", *more).exit_code == 0
    finally:
        counting.stop()
    assert results(tmp_path / "steered")["flips"]["turned"]["value"] == 1


@pytest.mark.parametrize(
    ("format", "mapping", "sentence"),
    [
        ("vqav2", "elephant=no", "no answer of the unsteered run is 'elephant'"),
        ("vqav2", "one=1", "both are '1' here"),
        ("coco", "dog=person", "is no gendered and no neutral word"),
        ("coco", "man=woman", "both are 'gendered' here"),
        ("pope", "maybe=no", "are read as yes or no"),
        ("mm-safetybench", "yes=no", "map among these"),
    ],
)
def test_a_mapping_without_meaning_is_refused_before_anything_is_asked(
    server: FakeEndpoint, house: Path, tmp_path: Path, format: str, mapping: str, sentence: str
) -> None:
    assert evaluate(server, house, format, tmp_path / "plain").exit_code == 0
    before = len(server.seen)
    result = evaluate(server, house, format, tmp_path / "out", "--against", tmp_path / "plain", "--map", mapping)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(server.seen) == before


def test_what_one_run_has_no_answer_to_counts_in_neither(house: Path, tmp_path: Path) -> None:
    picky = FakeEndpoint(lambda body: "yes" if body.get("steering") is None else "no")
    try:
        assert evaluate(picky, house, "pope", tmp_path / "plain").exit_code == 0
        one = question_of(picky.seen[0])
        picky.refused = {one}
        more = ("--steering", "p", "--against", tmp_path / "plain", "--max-refused", 1000)
        result = evaluate(picky, house, "pope", tmp_path / "out", *more)
    finally:
        picky.stop()
    assert result.exit_code == 0, result.output
    found = results(tmp_path / "out")
    left = sum(found["skipped"].values())
    assert found["skipped"] == {"the endpoint refused it: the prompt is too long": left}
    assert found["answered_in_one_run_only"] == left > 0
    assert found["against"]["answered"] == found["answered"]
    assert found["change"]["answers changed"]["n"] == found["answered"]


def test_a_draw_takes_its_share_of_each_type_and_the_same_samples_again(
    server: FakeEndpoint, house: Path, tmp_path: Path
) -> None:
    asked = []
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        server.seen.clear()
        assert evaluate(server, house, "pope", tmp_path / out, "--draw", 12, "--seed", seed).exit_code == 0
        asked.append(sorted(json.loads(line)["id"] for line in (tmp_path / out / "answers.jsonl").open()))
    assert asked[0] == asked[1] != asked[2]
    assert {one.partition("/")[0] for one in asked[0]} == {"random", "popular", "adversarial"}
    result = evaluate(
        server, house, "pope", tmp_path / "four", "--draw", 12, "--seed", 1, "--against", tmp_path / "one"
    )
    assert "differ in nothing but the steering" in result.stderr


def test_the_password_of_an_address_is_written_nowhere(
    server: FakeEndpoint, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-very-secret")
    address = server.url.replace("http://", "http://me:hush-hush@") + "?token=hush-too"
    words = [
        *("evaluate", "vqav2", house / "vqav2", "--base-url", address, "--served-model-name", "m"),
        *("--out", tmp_path / "out", "--prompt", "{question}", "--api-key-env", "THE_KEY"),
    ]
    monkeypatch.setattr("sys.argv", ["trimtab", *map(str, words)])
    result = CliRunner().invoke(app, list(map(str, words)))
    told = result.output + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert not [secret for secret in ("hush", "sk-very-secret") if secret in told]


def test_captions_made_neutral_are_counted_as_converted(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "coco", plain).exit_code == 0
    assert evaluate(server, house, "coco", steered, "--steering", "p", "--against", plain).exit_code == 0
    change = results(steered)["change"]
    assert change["gendered captions converted"]["value"] == 1
    assert change["gendered captions converted"]["n"] > 0


def test_runs_of_different_questions_are_not_compared(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    assert evaluate(server, house, "vqav2", tmp_path / "few", "--draw", 5).exit_code == 0
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
        (("--api-key-env", "NOT_SET_ANYWHERE"), "no environment variable has that name"),
        (("--draw", "-1"), "must be 1 or more"),
        (("--draw", "0"), "must be 1 or more"),
        (("--refusal", "never"), "is for mm-safetybench"),
        (("--map", "yes"), "cannot read the pair"),
        (("--map", "yes=no"), "--map needs --against"),
        (("--base-url", "localhost:8000"), "is no address of an endpoint"),
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


def test_a_key_given_in_place_of_its_name_is_not_said_again(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    result = evaluate(server, house, "vqav2", tmp_path / "out", "--api-key-env", "sk-0123456789")
    assert result.exit_code == 1
    assert "sk-0" not in result.output


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
