"""The commands, as they are typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.offline.worlds import write_data
from trimtab.offline.cli.app import app
from trimtab.offline.cli.console import figure
from trimtab.offline.states import load_states
from trimtab.offline.states.samples import read_samples
from trimtab.vectors import ConceptDictionary, ModelIdentity, Registry, load_profile
from trimtab.vectors.manifest import adds_nothing
from trimtab.vectors.profile import CoarseLayer


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pair(study: Path) -> tuple[str, str]:
    """Two words that the random model says, with a concept of their own among the class means."""
    labels = ConceptDictionary.load(study / "means").labels
    return labels[0], labels[1]


def test_every_step_from_a_model_to_profiles_that_its_server_takes(study: Path, llava: Path) -> None:
    original, target = pair(study)
    out = study / "profiles"
    common = ("--map", f"{original}={target}", "--registry", out)
    coarse = trimtab(
        "profile", study / "reps", "-l", 1, "-l", 3, "--kind", "coarse", "--name", "c", "--alpha-max", 4, *common
    )
    assert coarse.exit_code == 0, coarse.output
    fine = trimtab("profile", study / "reps", "-d", study / "means", "--name", "f", *common)
    assert fine.exit_code == 0, fine.output
    registry = Registry.open(out, ModelIdentity.of(llava))
    assert registry.names == ("c", "f")
    assert registry["c"].layers == (1, 3)
    assert registry["c"].manifest.alpha.max == 4
    concepts = len(ConceptDictionary.load(study / "means").labels)
    assert concepts <= registry["f"].largest_k <= concepts + 32  # and concepts of the background
    assert registry["f"].manifest.base_model.fingerprint == ModelIdentity.of(llava).fingerprint
    for folder in (out / "c", out / "f", study / "means", study / "kmeans", study / "reps"):
        assert trimtab("verify", folder, "--model", llava).exit_code == 0
        shown = trimtab("inspect", folder)
        assert shown.exit_code == 0, shown.output
        assert "LlavaForConditionalGeneration" in shown.stdout


def test_inspecting_shows_doses_labels_and_purity(study: Path) -> None:
    original, target = pair(study)
    trimtab(
        "profile", study / "reps", "-l", 3, "--kind", "coarse", "--name", "shown", "--map", f"{original}={target}",
        "--registry", study / "shown",
    )  # fmt: skip
    shown = trimtab("inspect", study / "shown" / "shown").stdout
    norms = load_profile(study / "shown" / "shown").manifest.norms[3]
    assert f"{norms.dose(1.0):.2f}" in shown
    assert "predicts:*" in shown
    listed = trimtab("inspect", study / "means").stdout
    assert original in listed
    assert "100%" in listed


def test_a_doubtful_fine_profile_is_made_and_warned_of_on_stderr(study: Path, tmp_path: Path) -> None:
    states = load_states(study / "reps", 3)
    # So few concepts that most words have none of their own, and enough that not all are of the same word.
    labels: tuple[str, ...] = ()
    few = 1
    while len(set(labels)) < 2:
        few += 1
        assert few < 8, "eight concepts of one word"
        trimtab("dictionary", study / "reps", "-l", 3, "-k", few, "--out", tmp_path / f"few-{few}")
        labels = tuple(ConceptDictionary.load(tmp_path / f"few-{few}").labels)
    first, second = sorted(set(labels))[:2]
    result = trimtab(
        "profile", study / "reps", "--kind", "fine", "-d", tmp_path / f"few-{few}", "--name", "doubtful",
        "--map", f"{first}={second}", "--registry", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0
    assert "no concept of its own" in result.stderr
    assert "warning" not in result.stdout
    assert len(states.values) > 2


def test_torch_vectors_are_imported_for_a_model(llava: Path, tmp_path: Path) -> None:
    torch.save({1: torch.ones(32)}, tmp_path / "v.pt")
    result = trimtab("import", tmp_path / "v.pt", "--model", llava, "--name", "theirs", "--registry", tmp_path)
    assert result.exit_code == 0, result.output
    profile = load_profile(tmp_path / "theirs")
    assert profile.layers == (1,)
    assert profile.manifest.provenance.source == "v.pt"
    assert trimtab("verify", tmp_path / "theirs", "--model", llava).exit_code == 0


def test_verify_notices_damage_and_another_model(study: Path, llama: Path, tmp_path: Path) -> None:
    result = trimtab("verify", study / "means", "--model", llama)
    assert result.exit_code == 1
    assert "another model" in result.stderr
    for file in (study / "reps").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "rows-00000.jsonl").write_bytes(b"")
    assert trimtab("verify", tmp_path).exit_code == 1


def test_a_profile_that_watches_is_made_without_a_mapping(study: Path, llava: Path, tmp_path: Path) -> None:
    common = ("profile", study / "reps", "-d", study / "means", "--name", "w", "--registry", tmp_path, "--watch")
    made = trimtab(*common)
    assert made.exit_code == 0, made.output
    profile = Registry.open(tmp_path, ModelIdentity.of(llava))["w"]
    assert adds_nothing(profile.manifest)
    assert profile.manifest.expected is not None
    concepts = ConceptDictionary.load(study / "means")
    assert len(profile.manifest.expected[concepts.layer]) == len(concepts.labels)
    assert "adds nothing" in (tmp_path / "w" / "README.md").read_text()
    prompts = trimtab(*common, "--positions", "prompt", "--force")
    assert prompts.exit_code == 0, prompts.output
    assert "shows no drift" in prompts.stderr
    for wrong in (("--map", "a=b"), ("--pair", "0=1"), ("--kind", "gated"), ("--limit-share", 0.9)):
        refused = trimtab(*common, "--force", *wrong)
        assert (refused.exit_code, "--watch" in refused.stderr) == (1, True), refused.output


def test_an_existing_profile_is_replaced_only_when_asked(study: Path, tmp_path: Path) -> None:
    command = ("dictionary", study / "reps", "-l", 3, "--method", "class-means", "--out", tmp_path / "d")
    assert trimtab(*command).exit_code == 0
    assert trimtab(*command).exit_code == 1
    assert trimtab(*command, "--force").exit_code == 0


def test_the_installed_command_shows_no_traceback_and_needs_no_torch_to_look() -> None:
    code = "import sys, trimtab.offline.cli as c; sys.argv = ['trimtab', 'inspect', 'absent']\n"
    code += "try: c.main()\nfinally: print('torch' in sys.modules, 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "False False\n"
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("trimtab: absent: does not exist")


def test_a_profile_can_lead_from_one_type_of_answer_to_another(study: Path, tmp_path: Path) -> None:
    data, reps = study / "data" / "data.jsonl", study / "reps"
    samples = read_samples(data).samples
    first, second = sorted({sample.type for sample in samples})[:2]
    done = trimtab("relabel", reps, "--by", "type", "--data", data, "--out", tmp_path / "typed")
    assert done.exit_code == 0, done.output
    common = ("profile", tmp_path / "typed", "--map", f"{first}={second}", "--registry", tmp_path / "profiles")
    coarse = trimtab(*common, "-l", 3, "--kind", "coarse", "--name", "c")
    assert coarse.exit_code == 0, coarse.output
    states = load_states(reps, 3)
    types = {sample.id: sample.type for sample in samples}
    original, target = (
        states.values[[types[sample] == wanted for sample in states.sample_ids]].mean(axis=0)
        for wanted in (first, second)
    )
    assert load_profile(tmp_path / "profiles" / "c").manifest.provenance.labels == "type"
    tensors = load_profile(tmp_path / "profiles" / "c").tensors[3]
    assert isinstance(tensors, CoarseLayer)
    np.testing.assert_allclose(tensors.vector, target - original, atol=1e-4)
    # A random model says the same words to both types, so that the profile touches more than it may.
    fine = trimtab(*common, "--kind", "fine", "-d", study / "means", "--name", "f", "--most-unmeant", 0.5)
    assert fine.exit_code == 0, fine.output


def test_types_of_another_samples_file_are_refused(study: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", 3, pictured=False)
    refused = trimtab("relabel", study / "reps", "--by", "type", "--data", other, "--out", tmp_path / "out")
    assert refused.exit_code == 1
    assert "is not the samples file" in refused.output


@pytest.mark.parametrize(("package", "extra"), [("typer", "offline"), ("sklearn", "offline"), ("openai", "evaluate")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(package: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "states").mkdir()
    command = {
        "typer": ["--help"],
        "sklearn": ["profile", str(tmp_path), "-l", "1", "-m", "a=b", "--name", "x", "--registry", str(tmp_path)],
        "openai": ["evaluate", "pope", str(tmp_path), "--base-url=u", "--served-model-name=m", f"--out={tmp_path}"],
    }[package]
    code = f"import sys; sys.modules[{package!r}] = None; sys.argv = ['trimtab', *{command!r}]\n"
    code += "from trimtab.offline.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"trimtab: needs the package {package!r}")
    assert f"pip install 'trimtab[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(214354.0, "214,354"), (3.0, "3"), (0.98765, "0.9877"), (12345.6, "12,346"), (1.5e-7, "1.5e-07"), (-2.0, "-2")],
)
def test_whole_numbers_are_printed_whole(value: float, shown: str) -> None:
    assert figure(value) == shown
