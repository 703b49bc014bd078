"""`trimtab shift` and `trimtab shift-profile`, end to end on tiny random models."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from tests.offline.test_adapters import adapter
from tests.offline.worlds import save_llama, save_llava, write_data
from trimtab.offline.cli.app import app
from trimtab.offline.cli.shift import PAST_THRESHOLD
from trimtab.offline.findings import DriftFound, ShiftFound, TableFound, read_findings
from trimtab.offline.models.reader import Reader
from trimtab.offline.shift.run import ShiftRun, dictionary_of
from trimtab.offline.shift.training import Training
from trimtab.offline.shift.watch import Watched
from trimtab.offline.states.rules import parse
from trimtab.offline.states.store import load_states, open_manifest
from trimtab.vectors import ModelIdentity, load_profile

COMMON = ("--rule", "predicts:*", "--layer", "3", "--k", "4")


def trimtab(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def nudged(base: Path, folder: Path, by: float) -> Path:
    """A "fine-tune": a copy of a model whose last block writes `by` times as much."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.3.mlp.down_proj.weight"))
    weights[name] = weights[name] * by
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("shift") / "data", 24, pictured=True)


@pytest.fixture(scope="module")
def tuned(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nudged(llava, tmp_path_factory.mktemp("tuned") / "model", 1.3)


@pytest.fixture(scope="module")
def run(llava: Path, tuned: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = trimtab("shift", llava, tuned, "--data", data, *COMMON, "--out", out)
    assert result.exit_code == 0, result.output
    assert "per concept" in result.stdout
    return out


def test_a_comparison_writes_its_finding_and_both_dictionaries(run: Path, llava: Path, tuned: Path) -> None:
    found = read_findings(run)["shift-layer3"]
    assert isinstance(found, ShiftFound)
    assert found.layer == 3
    assert len(found.concepts) == 4
    assert all(one.rows > 0 and one.magnitude > 0 for one in found.concepts)
    assert {"no shift", "global mean", "shuffled", "random clusters", "per concept", "ceiling"} == set(found.controls)
    for name, model in (("base", llava), ("finetuned", tuned)):
        assert trimtab("verify", run / "dictionaries" / name, "--model", model).exit_code == 0


def test_both_models_are_asked_with_one_prompt_which_the_profile_keeps(
    llava: Path, tuned: Path, data: Path, tmp_path: Path
) -> None:
    out, prompt = tmp_path / "run", "no snow. {question}"
    few = ("--data", data, "--rule", "last-prompt", "-l", "3", "--k", "2", "--limit", "12", "--prompt", prompt)
    assert trimtab("shift", llava, tuned, *few, "--out", out).exit_code == 0
    assert [open_manifest(out / "states" / name).request.prompt for name in ("base", "finetuned")] == [prompt] * 2
    assert trimtab("shift-profile", out, "--name", "x", "--registry", tmp_path).exit_code == 0
    assert load_profile(tmp_path / "x").manifest.provenance.prompt == prompt
    (tmp_path / "steps").mkdir()
    shutil.copytree(tuned, tmp_path / "steps" / "step-000001")
    watched = trimtab("watch", llava, tmp_path / "steps", *few, "--out", out, "--once", "--threshold", "0")
    assert watched.exit_code == 0, watched.output
    assert open_manifest(out / "states" / "step-000001").request.prompt == prompt


def test_a_second_run_goes_on_from_the_first_to_the_same_bytes(run: Path, llava: Path, tuned: Path, data: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    stamps = {path: path.stat().st_mtime_ns for path in (run / "states").rglob("*.safetensors")}
    assert trimtab("shift", llava, tuned, "--data", data, *COMMON, "--out", run).exit_code == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_run_does_not_mix_models(run: Path, llava: Path, data: Path, tmp_path: Path) -> None:
    other = nudged(llava, tmp_path / "other", 0.5)
    result = trimtab("shift", llava, other, "--data", data, *COMMON, "--out", run)
    assert result.exit_code == 1
    assert "begun with another model" in result.stderr


def test_models_of_two_kinds_are_refused_before_anything_is_read(
    llava: Path, llama: Path, data: Path, tmp_path: Path
) -> None:
    result = trimtab("shift", llava, llama, "--data", data, *COMMON, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "differ in their architecture" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_profiles_belong_to_the_model_that_they_steer(
    run: Path, llava: Path, tuned: Path, tmp_path: Path, kind: str
) -> None:
    for direction, model in (("toward", llava), ("back", tuned)):
        asked = ("--kind", kind, "--direction", direction, "--name", direction)
        result = trimtab("shift-profile", run, *asked, "--registry", tmp_path / direction)
        assert result.exit_code == 0, result.output
        made = load_profile(tmp_path / direction / direction)
        assert (made.manifest.kind, made.layers) == (kind, (3,))
        made.manifest.base_model.check(ModelIdentity.of(model))
    result = trimtab("shift-profile", run, *asked, "--registry", tmp_path / "toward")
    assert result.exit_code == 1
    assert "keep the profiles of each model in a folder of their own" in result.stderr


def test_a_folder_without_a_comparison_makes_no_profile(tmp_path: Path) -> None:
    result = trimtab("shift-profile", tmp_path, "--name", "x", "--registry", tmp_path)
    assert result.exit_code == 1
    assert "holds no comparison of two models" in result.stderr


def test_a_watch_passes_what_stays_and_exits_with_3_at_what_does_not(llava: Path, data: Path, tmp_path: Path) -> None:
    training, out = tmp_path / "training", tmp_path / "run"
    shutil.copytree(llava, training / "step-000010")
    asked = ("watch", llava, training, "--once", "--data", data, *COMMON, "--out", out)
    result = trimtab(*asked, "--threshold", "99")
    assert result.exit_code == 0, result.output
    assert "step 10: T-Overlap 100.0 %, cosine 1.000" in result.stdout

    save_llava(training / "step-000020", seed=7)
    result = trimtab(*asked, "--threshold", "99")
    assert result.exit_code == PAST_THRESHOLD == 3
    assert "step 20 is below the threshold" in result.stderr
    findings = read_findings(out)
    drift, table = findings["drift-layer3"], findings["table-drift-layer3"]
    assert isinstance(drift, DriftFound)
    assert drift.steps == (0, 10, 20)
    assert drift.curves["mean of all"][:2] == (100, 100)
    assert drift.curves["mean of all"][2] < 99
    assert isinstance(table, TableFound)
    assert [row[0] for row in table.rows] == [10, 20]


def test_a_watch_reads_each_checkpoint_once(llava: Path, data: Path, tmp_path: Path) -> None:
    training, base = tmp_path / "training", Reader(llava)
    run = ShiftRun(tmp_path / "run", data, parse("predicts:*"), layer=3, k=4)
    watched = run.watched(base)
    training.mkdir()
    looked = Training(training)
    for step in (10, 20):
        shutil.copytree(llava, training / f"step-{step:06d}")
        assert [drift.step for drift in run.drifts(watched, looked)] == [step]


def test_a_concept_without_a_row_left_has_gone_wholly(run: Path, llava: Path) -> None:
    states, model = load_states(run / "states" / "base", 3), Reader(llava)
    dictionary = dictionary_of(run, "base")
    nearest = dictionary.nearest(states.values)
    # States are paired by sample, word and occurrence: the first of each word is so whatever else goes.
    firsts = {word: place for place, word in reversed([*enumerate(zip(states.sample_ids, states.labels, strict=True))])}
    left = states.at(np.array([place for place in sorted(firsts.values()) if nearest[place] == nearest[0]]))
    drift = Watched(states, dictionary, model).drift(1, left, model)
    assert sorted(drift.overlaps) == pytest.approx([0, 0, 0, 100])
    assert sorted(drift.cosines)[:3] == [0, 0, 0]
    assert drift.cosine > 0


def test_a_watch_of_nothing_is_an_error_with_once(llava: Path, data: Path, tmp_path: Path) -> None:
    asked = ("--once", "--data", data, *COMMON, "--out", tmp_path / "run")
    for folder, message in ((tmp_path, "holds no checkpoint"), (tmp_path / "gone", "does not exist")):
        result = trimtab("watch", llava, folder, *asked)
        assert result.exit_code == 1
        assert message in result.stderr


def test_checkpoints_come_in_the_order_of_steps_and_only_when_they_are_whole(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-1000", "step-000020", "final", "half-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if name != "half-7":
            (tmp_path / name / "model.safetensors").write_bytes(b"")
    assert list(Training(tmp_path).fresh(settled=1000)) == []
    assert [step for step, _ in Training(tmp_path).fresh()] == [20, 500, 1000]


def test_a_watch_names_what_is_no_checkpoint_and_reads_the_others(llava: Path, data: Path, tmp_path: Path) -> None:
    training, out = tmp_path / "training", tmp_path / "run"
    shutil.copytree(llava, training / "checkpoint-10")
    (training / "checkpoint-10" / "latest").symlink_to("gone")  # a link to nothing inside
    (training / "checkpoint-20").symlink_to(tmp_path / "gone")
    (training / "checkpoint-30").mkdir()
    torn = shutil.copytree(llava, training / "checkpoint-40")
    (torn / "model.safetensors").write_bytes((llava / "model.safetensors").read_bytes()[:500])
    (training / "checkpoint-50").mkdir()
    shutil.copy(llava / "config.json", training / "checkpoint-50")
    (training / "checkpoint-50" / "pytorch_model.bin").write_bytes(b"pickle")
    adapter(llava, training / "checkpoint-60", size=0)
    save_llama(training / "checkpoint-70")
    (training / "loss-80").write_text("0.1")
    asked = ("--once", "--data", data, *COMMON, "--out", out, "--threshold", "99")
    result = trimtab("watch", llava, training, *asked)
    assert result.exit_code == 0, result.output
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["step 10", "step 60"]
    for number, reason in (
        (20, "a link to nothing"),
        (30, "neither a config.json nor an adapter_config.json"),
        (40, "header"),
        (50, r"no \*.safetensors"),
        (70, "differ in their architecture"),
    ):
        assert re.search(rf"checkpoint-{number} is left out: .*{reason}", result.stderr), result.stderr
    assert "loss-80" not in result.stderr

    adapter(llava, training / "checkpoint-90", size=60)
    assert trimtab("watch", llava, training, *asked).exit_code == PAST_THRESHOLD


def test_what_is_left_out_is_named_once_and_given_when_it_changes(llava: Path, tmp_path: Path) -> None:
    told: list[str] = []
    training = Training(tmp_path, told.append)
    path = tmp_path / "step-1"
    path.mkdir()
    assert [*training.fresh(), *training.fresh()] == []
    assert len(told) == 1
    shutil.copytree(llava, path, dirs_exist_ok=True)
    assert list(training.fresh()) == [(1, path)]
    training.leave_out(path, "it is torn")
    assert list(training.fresh()) == []
    os.utime(path / "config.json", (2e9, 2e9))
    assert list(training.fresh()) == [(1, path)]
    assert list(training.fresh()) == []
    assert len(told) == 2


def test_a_checkpoint_that_is_deleted_before_it_is_read_is_passed_without_a_word(
    llava: Path, data: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    folder = tmp_path / "training"
    for step in (10, 20):
        shutil.copytree(llava, folder / f"step-{step}")
    run = ShiftRun(tmp_path / "run", data, parse("predicts:*"), layer=3, k=4)
    drifts = run.drifts(run.watched(Reader(llava)), Training(folder, told.append))
    assert next(drifts).step == 10
    shutil.rmtree(folder / "step-20")  # a training keeps its last few checkpoints only
    assert list(drifts) == []
    Training(folder, told.append).leave_out(folder / "step-20", "it went while it was loaded")
    assert told == []
