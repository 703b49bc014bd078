"""Checkpoints that are no whole model: adapters, and folders without a processor or a template."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText

from tests.offline.worlds import questions
from trimtab.offline.errors import ModelError
from trimtab.offline.models.reader import Reader
from trimtab.offline.states.paired import check_comparable


def adapter(base: Path, folder: Path, size: float) -> Path:
    """A LoRA of the last block's down projection, as a training that saves adapters only leaves it."""
    model = AutoModelForImageTextToText.from_pretrained(base)
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=r".*language_model\.layers\.3\.mlp\.down_proj", init_lora_weights=False)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.mul_(size)
    adapted.save_pretrained(str(folder))
    return folder


def test_adapters_without_peft_name_the_extra_that_brings_it(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(llava, tmp_path / "checkpoint-5", size=2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"checkpoint-5: .* need peft; run: pip install 'trimtab\[offline\]'"):
        Reader(llava).like(folder)
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(needed.startswith("peft") for needed in extras["optional-dependencies"]["offline"])


def test_adapters_are_read_on_the_original_as_if_they_had_been_merged(llava: Path, tmp_path: Path) -> None:
    folder = adapter(llava, tmp_path / "checkpoint-5", size=2)
    assert not (folder / "config.json").exists()
    base = Reader(llava)
    merged = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(llava), str(folder)
    ).merge_and_unload()
    read = base.like(folder)
    for name, weight in merged.state_dict().items():
        assert torch.equal(weight, read.model.state_dict()[name])
    assert read.identity.fingerprint not in (None, base.identity.fingerprint)
    assert read.identity != base.like(adapter(llava, tmp_path / "other", size=3)).identity
    check_comparable(base.identity, read.identity)
    with pytest.raises(ModelError, match="adapters only"):
        Reader(folder)


def test_a_checkpoint_without_processor_and_template_takes_the_originals(llava: Path, tmp_path: Path) -> None:
    base = Reader(llava)
    weights_only, tokenizer_only = tmp_path / "step-1", tmp_path / "step-2"
    base.model.save_pretrained(weights_only)
    base.model.save_pretrained(tokenizer_only)
    base.tokenizer.save_pretrained(tokenizer_only)
    without_template = shutil.copytree(llava, tmp_path / "step-3")
    (without_template / "chat_template.jinja").unlink()
    question = questions(1, True)[0]
    expected = base.encode([question])
    for folder in (weights_only, tokenizer_only, without_template):
        found = base.like(folder).encode([question])
        assert all(torch.equal(found[name], expected[name]) for name in expected)
