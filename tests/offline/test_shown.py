"""What a terminal is shown: the text of artefacts as text, and other tools' files by what they say of themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from trimtab.offline.cli.app import app
from trimtab.vectors import ConceptDictionary, Profile, SteeringVector, load_profile, save_profile
from trimtab.vectors.identity import ModelIdentity
from trimtab.vectors.manifest import Provenance

MODEL = ModelIdentity(architecture="Made", hidden_size=3, num_layers=4, fingerprint="sampled-sha256:" + "0" * 64)
GOLDEN = Path(__file__).parents[1] / "vectors" / "golden"
MARKUP = ["[/bold]", "[bold]b[/bold]", "[link=http://x.test]here[/link]", "[/]", "[red]", ":smile:", r"\[b]"]


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_a_profile_is_shown_as_text(tmp_path: Path, text: str) -> None:
    provenance = Provenance(rule=text, evaluation={text: text}, samples={text: 1}, versions={text: text})
    vectors = [SteeringVector(0, np.ones(3))]
    save_profile(Profile.coarse("p", vectors, model=MODEL, description=text, provenance=provenance), tmp_path / "p")
    shown = trimtab("inspect", tmp_path / "p")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count(text) == 7  # description, rule, samples, two of versions, two of evaluation
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_a_dictionary_is_shown_as_text(tmp_path: Path, text: str) -> None:
    ConceptDictionary(
        layer=0,
        centroids=np.eye(2, 3, dtype=np.float32),
        labels=(text, "b"),
        counts=np.ones(2, int),
        purity=np.ones(2),
        method="kmeans",
        model=MODEL,
    ).save(tmp_path / "d")
    shown = trimtab("inspect", tmp_path / "d")
    assert shown.exit_code == 0, shown.output
    assert text in shown.stdout


def test_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    """Neither from a manifest, which is refused, nor from a key in it, nor from the folder's own name."""
    for name, old, new in (
        ("value", '"description": ""', '"description": "\\u001b[2J"'),
        ("key", '"description": ""', '"description": "", "\\u001b[2J": 1'),
        ("\x1b[2J", '"description": ""', '"description": 1'),
    ):
        save_profile(Profile.coarse("p", [SteeringVector(0, np.ones(3))], model=MODEL), tmp_path / name / "p")
        path = tmp_path / name / "p" / "profile.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        for command in ("inspect", "verify"):
            said = trimtab(command, tmp_path / name / "p")
            assert said.exit_code == 1
            assert said.stderr.startswith("trimtab: p/profile.json: ")
            assert "\x1b" not in said.output
    said = trimtab("verify", tmp_path / "\x1b[2J" / "absent")
    assert r"\x1b[2J/absent: does not exist" in said.stderr


def test_states_with_markup_are_shown_as_text(tmp_path: Path) -> None:
    states = Path(shutil.copytree(GOLDEN / "v1-states", tmp_path / "states"))
    manifest = json.loads((states / "manifest.json").read_text())
    manifest["shards"][1]["skipped"][0] = {"id": "[/bold]", "reason": "[link=http://x.test]why[/link]"}
    (states / "manifest.json").write_text(json.dumps(manifest))
    shown = trimtab("inspect", states)
    assert shown.exit_code == 0, shown.output
    assert "[/bold]" in shown.stdout
    assert "[link=http://x.test]why[/link]" in shown.stdout


def test_the_fields_of_version_2_are_shown(tmp_path: Path) -> None:
    profile = load_profile(GOLDEN / "v2" / "golden-full")
    shown = trimtab("inspect", GOLDEN / "v2" / "golden-full").stdout
    text = " ".join(shown.split())
    assert "At layer 3 it is expected to steer 6.2% of the positions" in text
    assert "At layer 4 it is expected to steer 50.0% of the positions" in text
    assert "2 concepts with a limit of their own" in shown
    assert "LlavaForConditionalGeneration sampled-sha256:0101" in shown
    assert (profile.manifest.provenance.chat_template or "?") in shown


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that says of itself what a model's folder does; its one weight is never looked into."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3, "num_hidden_layers": 4
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def test_vectors_for_another_family_are_a_question(model: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_tensor("direction.1", np.ones(3, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    command = ("import", tmp_path / "v.gguf", "--model", model, "--name", "v", "--registry", tmp_path / "profiles")
    asked = trimtab(*command)
    assert asked.exit_code == 1
    assert "made for a 'llama' model; this one is qwen2" in asked.stderr
    assert "say so with --any-family" in asked.stderr
    assert not (tmp_path / "profiles").exists()
    assert trimtab(*command, "--any-family").exit_code == 0
    assert load_profile(tmp_path / "profiles" / "v").layers == (1,)


def test_numpy_vectors_are_imported_by_their_ending(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", layer_2=np.ones(3, np.float32))
    done = trimtab("import", tmp_path / "v.npz", "--model", model, "--name", "v", "--registry", tmp_path / "profiles")
    assert done.exit_code == 0, done.output
    assert load_profile(tmp_path / "profiles" / "v").layers == (2,)
