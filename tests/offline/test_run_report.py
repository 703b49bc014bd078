"""A run folder that the commands filled, and the page that `trimtab report` makes of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page
from typer.testing import CliRunner

from tests.offline.fake_endpoint import FakeEndpoint
from tests.offline.invented import invented_run
from tests.offline.screenshots import browser, chromium, opened
from tests.offline.worlds import QUESTIONS
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError
from trimtab.offline.report import write_report
from trimtab.offline.run import KINDS, find, names, note_command, read_commands
from trimtab.offline.states.store import open_manifest
from trimtab.vectors import ConceptDictionary, load_profile
from trimtab.vectors.dose import said

TOLD = QUESTIONS[1]
BROKEN = "a person near an orange their orange their orange their"


def trimtab(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def reply(body: dict[str, object]) -> str:
    question = str(body["messages"])
    if not body.get("steering"):
        return "a man near an orange"
    return BROKEN if TOLD in question else "a person near an orange"


@pytest.fixture(scope="module")
def run(study: Path, llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States, two dictionaries, a coarse and a fine profile, two evaluations and concept cards, all by --run."""
    run = tmp_path_factory.mktemp("work") / "my-run"
    data = study / "data" / "data.jsonl"
    in_run = ("--run", run)
    trimtab("represent", llava, data, "--rule", "predicts:*", "-l", 1, "-l", 3, *in_run)
    trimtab("dictionary", "-l", 3, "--method", "class-means", *in_run)
    original, target = ConceptDictionary.load(run / "dictionaries" / "class-means-layer3").labels[:2]
    meant = ("--map", f"{original}={target}", "--force")
    trimtab("profile", "--name", "fine", *meant, *in_run)
    trimtab("profile", "predicts-all", "-l", 1, "-l", 3, "--name", "coarse", *meant, *in_run)
    trimtab("dictionary", "predicts-all", "-l", 3, "-k", 8, "--as", "kmeans", *in_run)
    trimtab("ground", "predicts-all", "class-means-layer3", "--model", llava, "--data", data, *in_run)
    trimtab("choose-k", "-l", 3, "-k", 2, "-k", 4, *in_run)
    server = FakeEndpoint(reply)
    asked = ("evaluate", "samples", data, "--base-url", server.url, "--served-model-name", "m", *in_run)
    trimtab(*asked)
    turns = "a man near an orange=a person near an orange"
    trimtab(*asked, "--as", "steered", "--steering", "fine", "--against", "samples-plain", "--map", turns)
    server.stop()
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    before = _content(run)
    assert write_report(run, run / "report.html") == {}
    assert _content(run) == before
    return (run / "report.html").read_text()


def _content(run: Path) -> dict[str, str]:
    """Every file but the page itself, so that nothing was copied or renamed."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_each_command_made_its_part_under_a_name_and_left_a_line(run: Path) -> None:
    made = {kind: names(run, kind) for kind in KINDS}
    assert made == {
        "states": ("predicts-all",),
        "dictionaries": ("class-means-layer3", "kmeans"),
        "profiles": ("coarse", "fine"),
        "evaluations": ("samples-plain", "steered"),
    }
    assert {path.name for path in run.glob("*.json")} == {
        "concepts-class-means-layer3.json",
        "choice-predicts-all.json",
    }
    assert len(read_commands(run)) == 9


def test_the_head_says_model_data_prompt_date_and_commands(run: Path, page: str) -> None:
    head = page[page.index("<header>") : page.index("</header>")]
    request = json.loads((run / "states" / "predicts-all" / "manifest.json").read_text())["request"]
    for told in (
        "Run my-run",
        "LlavaForConditionalGeneration",
        request["data"][:19],
        "{question}",
        "predicts:*",
        read_commands(run)[0].date[:10],
        "9 commands",
    ):
        assert told in head, told


def test_every_steering_stands_in_one_table_with_what_it_cost(run: Path, page: str) -> None:
    table = page[page.index('id="compared"') : page.index('id="profiles"')]
    results = json.loads((run / "evaluations" / "steered" / "results.json").read_text())
    turned = results["flips"]["turned"]
    assert f'data-sort="{turned["value"]}"' in table
    assert f"n = {turned['n']:,}" in table
    assert "fine at 1.0" in table
    for name in ("turned", "strayed", "stutter", "stutter, unsteered"):
        assert f">{name}</th>" in table


def test_profiles_are_told_with_dose_gate_and_which_concept_goes_to_which(run: Path, page: str) -> None:
    section = page[page.index('id="profiles"') : page.index('id="finding-1"')]
    profile = load_profile(run / "profiles" / "fine")
    dose = profile.manifest.norms[3].dose(profile.manifest.alpha.default)
    assert dose is not None
    assert f"{dose:.2f}" in section
    assert said(dose) in section
    labels = ConceptDictionary.load(run / "dictionaries" / "class-means-layer3").labels
    assert f'<th scope="row">{labels[0]} (0)</th>' in section
    assert f"<td>{labels[1]} (1)</td>" in section
    assert "nearest concept" in section
    assert ">coarse<" in section


def test_the_broken_answer_comes_first_with_its_question_and_picture(page: str) -> None:
    examples = page[page.index('<div class="examples">') :]
    first = examples[examples.index('<div class="pair">') :]
    first = first[: first.index("</ins>")]
    assert '<span class="tag">broken</span>' in first
    assert 'src="data:image/webp' in first
    assert TOLD in first


def test_a_card_shows_the_question_beside_its_picture(page: str) -> None:
    cards = page[page.index('<ul class="cards">') :]
    card = cards[: cards.index("</li>")]
    assert '<p class="asked">' in card
    assert "title=" in card


def test_inspect_shows_a_run_room_by_room_and_how_it_was_filled(run: Path, tmp_path: Path) -> None:
    begun = tmp_path / "run"
    shutil.copytree(run, begun)
    (begun / "evaluations" / "begun").mkdir()
    shown = " ".join(trimtab("inspect", begun).replace("│", " ").split())
    model = open_manifest(run / "states" / "predicts-all").request.model
    assert f"{model.architecture}, {model.num_layers} layers × {model.hidden_size}" in shown
    rooms = [room for room in (*KINDS, "findings", "commands") if f" {room} " in shown]
    assert rooms == [*KINDS, "findings", "commands"]
    for name in (name for kind in KINDS for name in names(run, kind)):
        assert name in shown
    assert "steered samples" in shown, "an evaluation with its data"
    assert "begun unfinished" in shown
    assert all(one.date in shown for one in read_commands(run))


def test_verify_reads_every_byte_of_a_runs_states(run: Path, tmp_path: Path) -> None:
    said_of = trimtab("verify", run)
    assert "run folder: 1 folders of states, 2 dictionaries, 2 profiles, 2 evaluations, " in " ".join(said_of.split())
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    shard = next((damaged / "states").rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    result = CliRunner().invoke(app, ["verify", str(damaged)])
    assert result.exit_code == 1
    assert shard.name in result.stderr


def test_an_evaluation_that_is_not_finished_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "evaluations" / "begun").mkdir()
    write_report(copy, tmp_path / "page.html")
    assert "begun" in (tmp_path / "page.html").read_text()


def test_a_broken_part_is_named_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "profiles" / "fine" / "profile.safetensors").write_bytes(b"")
    result = CliRunner().invoke(app, ["report", str(copy), "--page", str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert "fine/profile.safetensors" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_name_is_found_or_answered_with_those_there_are(run: Path) -> None:
    assert find(run, "states") == run / "states" / "predicts-all"
    assert find(run, "dictionaries", "kmeans").is_dir()
    with pytest.raises(DataError, match="several dictionaries; name one of class-means-layer3, kmeans"):
        find(run, "dictionaries")
    with pytest.raises(DataError, match="no profiles called 'fin'; name one of coarse, fine"):
        find(run, "profiles", "fin")
    with pytest.raises(DataError, match="holds no states yet"):
        find(run / "nowhere", "states")


def test_commands_are_noted_in_order_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    for command in ("trimtab one", "trimtab two"):
        note_command(tmp_path, command)
    with (tmp_path / "commands.jsonl").open("a") as file:
        file.write('{"date": "2')
    assert [one.command for one in read_commands(tmp_path)] == ["trimtab one", "trimtab two"]
    (tmp_path / "commands.jsonl").write_text("else\n")
    with pytest.raises(DataError, match="no command wrote"):
        read_commands(tmp_path)


@pytest.fixture(scope="module")
def long(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with as many findings as a whole study."""
    folder = tmp_path_factory.mktemp("long") / "run"
    shutil.copytree(run, folder)
    invented_run(folder)
    for path in list(folder.glob("*.json")):
        for more in range(5):
            shutil.copy(path, path.with_stem(f"{path.stem}-{more}"))
    write_report(folder, folder / "report.html")
    return folder


def test_a_whole_study_is_under_fifteen_screens(long: Path) -> None:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on PATH, and CHROME names none")
    with browser(executable) as started:
        page: Page = opened(started, long / "report.html", 1280)
        assert page.locator("main section").count() > 40
        assert page.evaluate("document.documentElement.scrollHeight") < 15 * 900
        page.close()
