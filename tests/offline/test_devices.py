"""In which number format, and on which devices, a model is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from tests.offline.worlds import questions, write_data
from trimtab.offline.models import Reader
from trimtab.offline.models.precision import emulates_half, resolved
from trimtab.offline.states import LastPrompt, load_states, represent
from trimtab.offline.states.store import load_background, open_manifest

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("config", "own"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "float64"}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_model_computes_in_its_own_format_where_the_device_does(
    tmp_path: Path, config: dict[str, object], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert resolved("auto", tmp_path, GPU) == own
    for capability, expected in (("AVX2", "float32"), ("AVX512", own)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda named=capability: named)
        assert resolved("auto", tmp_path, CPU) == expected
        assert resolved("float16", tmp_path, CPU) == "float16"


def test_the_manifest_says_what_the_model_computed_in(llava: Path, tmp_path: Path) -> None:
    model = shutil.copytree(llava, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    data = write_data(tmp_path / "data", 4, pictured=True)
    manifest = represent(model, data, LastPrompt(), [1], tmp_path / "out")
    assert manifest.request.dtype == ("float32" if emulates_half(CPU) else "bfloat16")


def test_layers_that_are_spread_over_devices_give_the_same_states(llava: Path, llava_reader: Reader) -> None:
    """On a CPU alone everything fits in one place: so what accelerate does with layers on the host is asked for."""
    spread = Reader(llava, "float32", "auto").like(llava)
    cpu_offload(spread.model, CPU)
    assert {parameter.device.type for parameter in spread.model.parameters()} == {"meta"}
    ours, theirs = (reader.read(questions(6, True), [1, 3], 6) for reader in (spread, llava_reader))
    for one, other in zip(ours, theirs, strict=True):
        assert one.answer == other.answer
        for layer in (1, 3):
            np.testing.assert_allclose(one.stream[layer], other.stream[layer], atol=1e-5)


def test_nothing_is_generated_where_no_answer_is_needed(llava_reader: Reader, tmp_path: Path) -> None:
    """The label is the data's, no background is wanted, and the rule is content with the prompt."""
    data = write_data(tmp_path / "data", 8, pictured=True)
    forwards = 0

    def count(block: object, inputs: object) -> None:
        nonlocal forwards
        forwards += 1

    handle = llava_reader.blocks[0].register_forward_pre_hook(count)
    try:
        represent(llava_reader, data, LastPrompt(), [1], tmp_path / "read", labels="truth", background=0)
        once = forwards
        represent(llava_reader, data, LastPrompt(), [1], tmp_path / "answered", labels="truth")
    finally:
        handle.remove()
    assert once == 1
    assert forwards > 2 * once
    assert open_manifest(tmp_path / "read").request.max_new_tokens == 0
    read, answered = load_states(tmp_path / "read", 1), load_states(tmp_path / "answered", 1)
    assert set(read.labels) == {"yes"}
    np.testing.assert_allclose(read.values, answered.values, atol=1e-4)
    assert load_background(tmp_path / "read", 1) is None
