"""Offline reads each of these models as it is: its pictures, its attention, its one stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from examples.tinyworld.draw import draw
from tests.architectures.parts import LAYERS
from tests.architectures.table import build
from tests.engine.asking import scene_of
from trimtab.offline.errors import ModelError
from trimtab.offline.models import Question, Reader

TOP = LAYERS - 1


def last_state(reader: Reader, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The state after the last block at the last position of one forward."""
    kept: list[torch.Tensor] = []

    def keep(block: object, inputs: object, output: Any) -> None:
        kept.append(output if isinstance(output, torch.Tensor) else output[0])

    handle = reader.blocks[TOP].register_forward_hook(keep)
    with torch.inference_mode():
        reader.model(**inputs)
    handle.remove()
    return np.asarray(kept[0][0, -1])


@pytest.mark.parametrize("name", ["Gemma3ForConditionalGeneration", "PaliGemmaForConditionalGeneration"])
def test_a_picture_that_is_attended_to_both_ways_is_read_so(name: str, tmp_path: Path) -> None:
    reader = Reader(build(name, tmp_path), "float32", "cpu")
    question = Question("what is it?", draw(scene_of(1)).convert("RGB"))
    (read,) = reader.read([question], [TOP], 2)
    told = reader.processor(text=reader.prompt(question), images=[question.image], return_tensors="pt")
    inputs = {name: value for name, value in told.items() if isinstance(value, torch.Tensor)}
    np.testing.assert_allclose(read.stream[TOP][0], last_state(reader, inputs), atol=1e-4)
    reader.model.set_attn_implementation("eager")  # the default goes both ways for PaliGemma even without types
    causal = {name: value for name, value in inputs.items() if name != "token_type_ids"}
    assert np.abs(read.stream[TOP][0] - last_state(reader, causal)).max() > 1e-2


def test_a_tokenizers_types_mean_nothing_to_a_text_model(tmp_path: Path) -> None:
    reader = Reader(build("GPT2LMHeadModel", tmp_path), "float32", "cpu")
    assert "token_type_ids" not in reader.encode([Question("who is there?")])


def test_bounded_attention_logits_are_read_bounded(tmp_path: Path) -> None:
    folder = build("Gemma2ForCausalLM", tmp_path)
    reader = Reader(folder, "float32", "cpu")
    inputs = reader.encode([Question("who is there? two red balls.")])
    eager, usual = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
        for attention in ("eager", "sdpa")
    )
    with torch.inference_mode():
        read, bounded, unbounded = (model(**inputs).logits for model in (reader.model, eager, usual))
    torch.testing.assert_close(read, bounded, rtol=0, atol=1e-5)
    assert (read - unbounded).abs().max() > 1e-4


def test_a_model_of_several_streams_is_refused(tmp_path: Path) -> None:
    reader = Reader(build("Gemma3nForCausalLM", tmp_path), "float32", "cpu")
    with pytest.raises(ModelError, match="several streams"):
        reader.read([Question("who is there?")], [TOP], 2)
