"""The command `trimtab tune` on the tiny model through a real server, and what the studies' programs add to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from examples.tinyworld.export import MODEL
from examples.tinyworld.study import toward
from examples.tinyworld.study.figures import spaced
from examples.tinyworld.study.prepare import write_folders
from tests.ctrl_c import heed_ctrl_c
from trimtab.offline.findings import AnswersFound, SweepFound, TableFound, read_findings
from trimtab.offline.states.samples import Sample
from trimtab.offline.tuning import read_tuning
from trimtab.vectors import ModelIdentity, Registry

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = sorted((ROOT / "examples/tinyworld/study").glob("*.yaml"))
SMALL = """
model: {model}
data: {data}
ask: {{dev: 15, test: 24}}
max_tokens: 3
layers: [5]
most_collateral: 0.1
steerings:
  yes-to-no: {{map: {{yes: no}}}}
candidates:
  - {{kind: coarse, alphas: [0.5]}}
  - {{kind: class-means, alphas: [0.1, 1.0]}}
  - {{kind: kmeans, k: [1]}}
serve: [--max-model-len, 512, --enforce-eager]
environment: {{VLLM_CPU_KVCACHE_SPACE: 1, VLLM_WORKER_MULTIPROC_METHOD: fork}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with its configuration."""
    folder = tmp_path_factory.mktemp("study")
    write_folders(folder / "data", {"train": 30, "dev": 5, "test": 8})
    (folder / "small.yaml").write_text(SMALL.format(model=MODEL, data=folder / "data" / "answers"))
    return folder


def start(folder: Path) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "trimtab.offline.cli", "tune", folder / "small.yaml", "--run", folder / "run"]
    return subprocess.Popen(
        list(map(str, program)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def kept(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "run/tuning/asked").glob("*/answers.jsonl"))


def servers(folder: Path) -> list[psutil.Process]:
    """Processes of servers of this folder's profiles; others may run beside them."""
    lines = ((one, " ".join(one.info["cmdline"] or [])) for one in psutil.process_iter(["cmdline"]))
    return [one for one, line in lines if f"--steering-profiles {folder}" in line]


@pytest.fixture(scope="module")
def interrupted(folder: Path) -> tuple[int, int, str, list[psutil.Process]]:
    """Exit code, answers kept, what was said, and servers left, of a run that was stopped by Ctrl-C."""
    running = start(folder)
    for _ in range(3000):
        if running.poll() is not None or kept(folder) > 20:
            break
        time.sleep(0.1)
    assert servers(folder)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    return running.returncode, kept(folder), said, servers(folder)


@pytest.fixture(scope="module")
def finished(folder: Path, interrupted: object) -> tuple[str, str]:
    """stdout and stderr of the run that goes on."""
    running = start(folder)
    printed, said = running.communicate(timeout=600)
    assert running.returncode == 0, said[-2000:]
    return printed, said


@pytest.mark.engine
class TestTune:
    def test_ctrl_c_keeps_the_answers_says_so_and_leaves_no_server(
        self, interrupted: tuple[int, int, str, list[psutil.Process]]
    ) -> None:
        code, answers, said, left = interrupted
        assert code not in (0, 1)
        assert answers > 20
        assert "run the same command to go on" in said
        assert "Traceback" not in said
        assert left == []

    def test_the_run_goes_on_and_ends_with_a_chosen_profile(self, folder: Path, finished: tuple[str, str]) -> None:
        printed, said = finished
        assert "yes-to-no: kmeans at layer 5 is left out: " in said  # one concept cannot stand for two words
        registry = Registry.open(folder / "run/profiles", ModelIdentity.of(MODEL))
        profile = registry["yes-to-no"]
        assert "fine, class means, layer 5, alpha 1" in printed
        assert profile.manifest.kind == "fine"
        assert profile.manifest.alpha.default == 1.0
        told = profile.manifest.provenance.evaluation["tuning"]
        assert isinstance(told, dict)
        assert str(told["test"]["turned %"]).startswith("100.0")  # type: ignore[call-overload, index]
        assert str(told["test, null control"]["turned %"]).startswith("0.0")  # type: ignore[call-overload, index]

    def test_findings_hold_the_curve_the_controls_and_the_answers(
        self, folder: Path, finished: tuple[str, str]
    ) -> None:
        found = read_findings(folder / "run")
        table, sweep, answers = found["table-small"], found["sweep-yes-to-no"], found["answers-yes-to-no"]
        assert isinstance(table, TableFound)
        assert ("null", "fine, class means") in [row[1:3] for row in table.rows]
        assert {"none", "coarse", "fine, class means", "logit_bias"} == {row[2] for row in table.rows}
        assert table.columns[6:10] == ("turned %", "strayed %", "off target %", "stutter %")
        assert isinstance(sweep, SweepFound)
        assert [(one.split, one.alpha) for one in sweep.points if one.chosen] == [("dev", 1.0), ("test", 1.0)]
        assert sum(one.split == "dev" for one in sweep.points) == 3
        assert isinstance(answers, AnswersFound)
        assert any((old, new) == ("yes", "no") for old, new, _ in answers.flow)

    def test_a_third_run_starts_no_server_and_says_the_same(self, folder: Path, finished: tuple[str, str]) -> None:
        before = kept(folder)
        running = start(folder)
        printed, said = running.communicate(timeout=300)
        assert (running.returncode, printed) == (0, finished[0])
        assert "the server starts" not in said
        assert kept(folder) == before


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_studies_are_configurations_of_thirty_lines(path: Path) -> None:
    assert read_tuning(path).steerings
    assert len(path.read_text().splitlines()) <= 30


def test_samples_of_the_studies_say_which_scene_has_a_sign(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "data/safety/test.jsonl").read_text().splitlines()]
    assert {line["scene"] for line in lines} == {"sign", "safe"}
    assert all((folder / "data/safety" / line["image"]).is_file() for line in lines)


def test_words_strung_together_by_a_steering_count_as_words() -> None:
    assert spaced("sorrysorry, that is not safe.") == "sorry sorry that is not safe"
    assert spaced("nobody") == "nobody"


@pytest.mark.parametrize(
    ("answers", "first", "whole", "changed"),
    [
        (["bag", "ball", "yes"], 0, 0, 0),
        (["red bag", "ball", "yes"], 0.5, 0.5, 0),
        (["red red", "blueblue", "no"], 1, 0, 1),
        (["blue", "red", "yes"], 0, 0, 0),
    ],
)
def test_toward_a_fine_tune_counts_its_words_where_it_changed_something(
    answers: list[str], first: float, whole: float, changed: float
) -> None:
    said = {"0": ["red", "bag"], "1": ["blue", "ball"], "2": ["yes"]}
    samples = [Sample(str(number), "what is it?") for number in range(3)]
    found = toward.shares(samples, ["bag", "ball", "yes"], answers, said)
    assert [share.value for share in found] == [first, whole, changed]
