"""The commands, as they are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
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
from trimtab.vectors.profile import CoarseLayer


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def house(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, rows of layers 1 and 3, and two dictionaries."""
    house = tmp_path_factory.mktemp("house")
    data = write_data(house / "data", 40, pictured=True)
    for command in (
        ("represent", llava, data, "--rule", "predicts:*", "--layer", 1, "--layer", 3, "--out", house / "reps"),
        ("dictionary", house / "reps", "--layer", 3, "--method", "kmeans", "--k", 8, "--out", house / "kmeans"),
        ("dictionary", house / "reps", "--layer", 3, "--method", "class-means", "--out", house / "means"),
    ):
        result = trimtab(*command)
        assert result.exit_code == 0, result.output
    return house


def pair(house: Path) -> tuple[str, str]:
    """Two words that the random model says, with a concept of their own among the class means."""
    labels = ConceptDictionary.load(house / "means").labels
    return labels[0], labels[1]


def test_every_step_from_a_model_to_profiles_that_its_server_takes(house: Path, llava: Path) -> None:
    original, target = pair(house)
    out = house / "profiles"
    common = ("--map", f"{original}={target}", "--registry", out)
    coarse = trimtab(
        "profile", house / "reps", "-l", 1, "-l", 3, "--kind", "coarse", "--name", "c", "--alpha-max", 4, *common
    )
    assert coarse.exit_code == 0, coarse.output
    fine = trimtab("profile", house / "reps", "-d", house / "means", "--name", "f", *common)
    assert fine.exit_code == 0, fine.output
    registry = Registry.open(out, ModelIdentity.of(llava))
    assert registry.names == ("c", "f")
    assert registry["c"].layers == (1, 3)
    assert registry["c"].manifest.alpha.max == 4
    assert registry["f"].largest_k == len(ConceptDictionary.load(house / "means").labels)
    assert registry["f"].manifest.base_model.fingerprint == ModelIdentity.of(llava).fingerprint
    for folder in (out / "c", out / "f", house / "means", house / "kmeans", house / "reps"):
        assert trimtab("verify", folder, "--model", llava).exit_code == 0
        shown = trimtab("inspect", folder)
        assert shown.exit_code == 0, shown.output
        assert "LlavaForConditionalGeneration" in shown.stdout


def test_inspecting_shows_doses_labels_and_purity(house: Path) -> None:
    original, target = pair(house)
    trimtab(
        "profile", house / "reps", "-l", 3, "--kind", "coarse", "--name", "shown", "--map", f"{original}={target}",
        "--registry", house / "shown",
    )  # fmt: skip
    shown = trimtab("inspect", house / "shown" / "shown").stdout
    norms = load_profile(house / "shown" / "shown").manifest.norms[3]
    assert f"{norms.dose(1.0):.2f}" in shown
    assert "predicts:*" in shown
    listed = trimtab("inspect", house / "means").stdout
    assert original in listed
    assert "100%" in listed


def test_a_doubtful_fine_profile_is_made_and_warned_of_on_stderr(house: Path, tmp_path: Path) -> None:
    rows = load_states(house / "reps", 3)
    # So few concepts that most words have none of their own, and enough that not all are of the same word.
    labels: tuple[str, ...] = ()
    few = 1
    while len(set(labels)) < 2:
        few += 1
        assert few < 8, "eight concepts of one word"
        trimtab("dictionary", house / "reps", "-l", 3, "-k", few, "--out", tmp_path / f"few-{few}")
        labels = tuple(ConceptDictionary.load(tmp_path / f"few-{few}").labels)
    first, second = sorted(set(labels))[:2]
    result = trimtab(
        "profile", house / "reps", "--kind", "fine", "-d", tmp_path / f"few-{few}", "--name", "doubtful",
        "--map", f"{first}={second}", "--registry", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0
    assert "no concept of its own" in result.stderr
    assert "warning" not in result.stdout
    assert len(rows.values) > 2


def test_torch_vectors_are_imported_for_a_model(llava: Path, tmp_path: Path) -> None:
    torch.save({1: torch.ones(32)}, tmp_path / "v.pt")
    result = trimtab("import", tmp_path / "v.pt", "--model", llava, "--name", "theirs", "--registry", tmp_path)
    assert result.exit_code == 0, result.output
    profile = load_profile(tmp_path / "theirs")
    assert profile.layers == (1,)
    assert profile.manifest.provenance.source == "v.pt"
    assert trimtab("verify", tmp_path / "theirs", "--model", llava).exit_code == 0


def test_verify_notices_damage_and_another_model(house: Path, llama: Path, tmp_path: Path) -> None:
    result = trimtab("verify", house / "means", "--model", llama)
    assert result.exit_code == 1
    assert "another model" in result.stderr
    for file in (house / "reps").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "rows-00000.jsonl").write_bytes(b"")
    assert trimtab("verify", tmp_path).exit_code == 1


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("represent", "{house}/absent", "{house}/data/data.jsonl", "--rule", "last-prompt", "-l", "0"), "does not exist"),
    (("represent", "{llava}", "{house}/absent.jsonl", "--rule", "last-prompt", "-l", "0"), "does not exist"),
    (("represent", "{llava}", "{house}/data/data.jsonl", "--rule", "last", "-l", "0"), "unknown rule"),
    (("represent", "{llava}", "{house}/data/data.jsonl", "--rule", "last-prompt", "-l", "4"), "0 to 3"),
    (("represent", "{house}/data", "{house}/data/data.jsonl", "--rule", "last-prompt", "-l", "0"), "config.json"),
    (("dictionary", "{house}/data", "-l", "0"), "trimtab represent"),
    (("dictionary", "{house}/reps", "-l", "2"), "layers there are 1, 3"),
    (("dictionary", "{house}/reps", "-l", "3", "-k", "100000"), "k is 100000"),
    (("profile", "{house}/reps", "--kind", "fine", "-m", "a=b", "--name", "x"), "needs a --dictionary"),
    (("profile", "{house}/reps", "--kind", "coarse", "-m", "a=b", "--name", "x"), "needs --layer"),
    (("profile", "{house}/reps", "-m", "a=b", "--name", "x"), "needs --layer (coarse) or --dictionary (fine)"),
    (("profile", "{house}/reps", "--kind", "coarse", "-d", "{house}/means", "-m", "a=b", "--name", "x"), "takes no"),
    (("profile", "{house}/reps", "--kind", "coarse", "-l", "3", "-m", "a", "--name", "x"), "yes=no"),
    (("profile", "{house}/reps", "--kind", "coarse", "-l", "3", "-m", "a=b", "--name", "x"), "no state stands for 'a'"),
    (
        ("profile", "{house}/reps", "--kind", "coarse", "-l", "3", "-m", "a=b", "--name", "x", "--alpha-max", "0.5"),
        "does not hold",
    ),
    (("import", "{house}/data/data.jsonl", "--model", "{llava}", "--name", "x"), "--format"),
    (("inspect", "{house}/data"), "no profile, dictionary, folder of states or of findings"),
    (("verify", "{house}/absent"), "absent: does not exist; give a profile"),
    (("inspect", "{house}/data/data.jsonl"), "data.jsonl: is no folder; give a profile"),
]


@pytest.mark.parametrize(("arguments", "complaint"), WRONG)
def test_what_is_wrong_is_one_sentence_and_exit_code_one(
    house: Path, llava: Path, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    filled = [part.format(house=house, llava=llava) for part in arguments]
    if arguments[0] not in ("inspect", "verify"):
        filled += ["--registry" if arguments[0] in ("profile", "import") else "--out", str(tmp_path / "out")]
    result = trimtab(*filled)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("trimtab: ")]) == 1
    assert result.stderr.splitlines()[-1].startswith("trimtab: ")
    assert not (tmp_path / "out").exists()


def test_an_existing_profile_is_replaced_only_when_asked(house: Path, tmp_path: Path) -> None:
    command = ("dictionary", house / "reps", "-l", 3, "--method", "class-means", "--out", tmp_path / "d")
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


def test_a_profile_can_lead_from_one_type_of_answer_to_another(house: Path, tmp_path: Path) -> None:
    data, reps = house / "data" / "data.jsonl", house / "reps"
    samples = read_samples(data).samples
    first, second = sorted({sample.type for sample in samples})[:2]
    common = ("profile", reps, "--map", f"{first}={second}", "--by-type", data, "--registry", tmp_path)
    coarse = trimtab(*common, "-l", 3, "--kind", "coarse", "--name", "c")
    assert coarse.exit_code == 0, coarse.output
    rows = load_states(reps, 3)
    types = {sample.id: sample.type for sample in samples}
    original, target = (
        rows.values[[types[sample] == wanted for sample in rows.sample_ids]].mean(axis=0) for wanted in (first, second)
    )
    tensors = load_profile(tmp_path / "c").tensors[3]
    assert isinstance(tensors, CoarseLayer)
    np.testing.assert_allclose(tensors.vector, target - original, atol=1e-4)
    fine = trimtab(*common, "--kind", "fine", "-d", house / "means", "--name", "f")
    assert fine.exit_code == 0, fine.output


def test_types_of_another_samples_file_are_refused(house: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", 3, pictured=False)
    refused = trimtab(
        "profile", house / "reps", "-l", 3, "--kind", "coarse", "--name", "c", "--map", "a=b", "--by-type", other,
        "--registry", tmp_path,
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "is not the samples file" in refused.output


ASKED = ("--base-url", "http://localhost/v1", "--model", "m", "--format", "pope", "--out", "{out}")
ABSENT: list[tuple[str, ...]] = [
    ("represent", "{absent}", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("represent", "{llava}", "{absent}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("dictionary", "{absent}", "-l", "3", "--out", "{out}"),
    ("choose-k", "{absent}", "-l", "3", "-k", "2", "--findings", "{out}"),
    ("choose-k", "{reps}", "-l", "3", "-k", "2", "--findings", "{out}", "--model", "{absent}"),
    ("ground", "{absent}", "{means}", "--model", "{llava}", "--findings", "{out}"),
    ("ground", "{reps}", "{absent}", "--model", "{llava}", "--findings", "{out}"),
    ("ground", "{reps}", "{means}", "--model", "{absent}", "--findings", "{out}"),
    ("ground", "{reps}", "{means}", "--model", "{llava}", "--findings", "{out}", "--data", "{absent}"),
    ("ground", "{reps}", "{means}", "--model", "{llava}", "--findings", "{out}", "--clip", "{absent}"),
    ("shift", "{absent}", "{llava}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("shift", "{llava}", "{absent}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("shift", "{llava}", "{llava}", "--data", "{absent}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("watch", "{llava}", "{absent}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("profile", "{absent}", "-l", "3", "-m", "a=b", "--name", "x", "--registry", "{out}"),
    ("profile", "{reps}", "-d", "{absent}", "-m", "a=b", "--name", "x", "--registry", "{out}"),
    ("profile", "{reps}", "-l", "3", "-m", "a=b", "--by-type", "{absent}", "--name", "x", "--registry", "{out}"),
    ("shift-profile", "{absent}", "--name", "x", "--registry", "{out}"),
    ("import", "{absent}", "--model", "{llava}", "--name", "x", "--registry", "{out}"),
    ("import", "{data}", "--model", "{absent}", "--name", "x", "--registry", "{out}"),
    ("evaluate", *ASKED, "--data", "{absent}"),
    ("evaluate", *ASKED, "--data", "{reps}", "--against", "{absent}"),
    ("evaluate", *ASKED, "--data", "{reps}", "--images", "{absent}"),
    ("report", "{absent}"),
    ("inspect", "{absent}"),
    ("verify", "{absent}"),
    ("verify", "{means}", "--model", "{absent}"),
]


@pytest.mark.parametrize("arguments", ABSENT, ids=lambda given: f"{given[0]}-{given.index('{absent}')}")
def test_what_is_not_there_is_said_before_anything_else_happens(
    house: Path, llava: Path, tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.offline.models.reader.Reader.__init__", _never)
    monkeypatch.setattr("trimtab.offline.states.store.open_manifest", _never)
    places = {"absent": tmp_path / "absent", "data": house / "data" / "data.jsonl", "llava": llava,
              "reps": house / "reps", "means": house / "means", "out": tmp_path / "out"}  # fmt: skip
    result = trimtab(*(part.format(**places) for part in arguments))
    assert result.exit_code == 1
    assert re.fullmatch(rf"trimtab: {tmp_path}/absent: does not exist; give .+\n", result.stderr)
    assert not (tmp_path / "out").exists()


def _never(*_: object, **__: object) -> None:
    raise AssertionError("something slow was begun")


@pytest.mark.parametrize("limit", ["-1", "0"])
def test_a_limit_that_asks_for_nothing_cannot_be_read(house: Path, llava: Path, tmp_path: Path, limit: str) -> None:
    asked = ("represent", llava, house / "data" / "data.jsonl", "--rule", "last-prompt", "-l", 0, "--limit", limit)
    result = trimtab(*asked, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--limit" in result.stderr


def test_the_help_goes_through_the_pipeline_in_its_order() -> None:
    shown = trimtab("--help").stdout
    order = [
        "represent", "dictionary", "choose-k", "ground", "shift", "watch", "profile", "shift-profile", "import",
        "evaluate", "report", "inspect", "verify",
    ]  # fmt: skip
    assert re.findall(r"^│ ([a-z]\S*) ", shown, re.M) == order
    assert "Exit codes: 0 done." in shown
    assert "trimtab represent MODEL" in shown


def test_the_version_is_the_package_s() -> None:
    assert trimtab("--version").stdout == f"trimtab {version('trimtab')}\n"


def test_out_is_always_the_folder_that_a_command_writes() -> None:
    for name in ("represent", "dictionary", "shift", "watch", "evaluate"):
        assert "--out" in trimtab(name, "--help").stdout
    for name in ("choose-k", "ground", "profile", "shift-profile", "import", "report", "inspect", "verify"):
        assert "--out" not in trimtab(name, "--help").stdout


@pytest.mark.parametrize(("package", "extra"), [("typer", "offline"), ("sklearn", "offline"), ("openai", "evaluate")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(package: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "states").mkdir()
    command = {
        "typer": ["--help"],
        "sklearn": ["profile", str(tmp_path), "-l", "1", "-m", "a=b", "--name", "x", "--registry", str(tmp_path)],
        "openai": ["evaluate", "--base-url=u", "--model=m", f"--data={tmp_path}", "--format=pope", f"--out={tmp_path}"],
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
