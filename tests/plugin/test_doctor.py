"""`trimtab-serve doctor` says what can be done with a model, in the real program, and its exit code agrees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.architectures.parts import HIDDEN, LAYERS
from tests.architectures.table import build
from trimtab.plugin import asking
from trimtab.plugin.doctor import command
from trimtab.plugin.doctor.verdict import judge

ROOT = Path(__file__).parents[2]
SIZE = 32


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment.pop("VLLM_PLUGINS", None)
    program = [sys.executable, "-m", "trimtab.plugin.serve", "doctor", *arguments]
    return subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_without_an_engine_it_finds_layers_sizes_and_template(tmp_path: Path) -> None:
    folder = build("LlavaForConditionalGeneration", tmp_path / "model")
    found = doctor(str(folder))
    assert found.returncode == 0, found.stderr
    said = " ".join(found.stdout.split())
    assert f"{LAYERS} of {HIDDEN}, at language_model.model.layers (LlamaDecoderLayer)" in said
    assert "vLLM's own class, LlavaForConditionalGeneration, in bfloat16" in said
    assert "pictures yes" in said
    assert "chat template in the model's folder" in said
    assert f"trimtab-serve {folder} --steering-profiles DIR" in said


def test_a_folder_that_holds_no_model_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**command._USUAL, asking.SWITCH: "1"}.items():
        monkeypatch.setenv(name, value)  # the doctor sets them for its process
    assert command.main([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("cannot be steered: ")
    assert "config.json" in said.out
    assert "Traceback" not in said.out + said.err


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "StableLmForCausalLM"])
def test_with_an_engine_it_proves_the_additions(name: str, tmp_path: Path) -> None:
    found = doctor(str(build(name, tmp_path / "model")), "--engine", "--dtype", "float32")
    assert found.returncode == 0, found.stdout + found.stderr[-3000:]
    assert "proven: " in found.stdout


def told(seed: int) -> dict[int | None, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    return {layer: rng.normal(size=SIZE).astype(np.float32) for layer in (None, 0, 3)}


@given(st.integers(0, 1000), st.sampled_from([None, 0, 3]), st.integers(0, SIZE - 1), st.sampled_from([0.01, -3.0]))
def test_one_log_probability_that_is_off_is_a_difference(seed: int, where: int | None, at: int, off: float) -> None:
    expected, served = told(seed), told(seed)
    assert judge(served, expected, "float32").status == "proven"
    served[where][at] += off
    found = judge(served, expected, "float32")
    assert found.status == "differs"
    assert ("before anything" in found.reason) == (where is None)


def test_a_vector_that_changes_nothing_proves_nothing() -> None:
    same = {layer: told(1)[None] for layer in (None, 0, 3)}
    assert judge(same, same, "float32").status == "unclear"


def test_what_is_no_number_is_a_difference() -> None:
    served = told(1)
    served[3][0] = np.nan
    assert judge(served, told(1), "bfloat16").status == "differs"
    served[None][0] = np.nan
    assert judge(served, told(1), "float32").status == "differs"


def test_the_padding_of_a_vocabulary_is_left_out() -> None:
    expected = {layer: np.append(values, np.float32(99)) for layer, values in told(1).items()}
    assert judge(told(1), expected, "float32").status == "proven"
