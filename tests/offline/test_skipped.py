"""What one sample costs that cannot be read: itself, and never the run; and what a run says meanwhile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.offline.test_other_models import save_qwen2_vl
from tests.offline.worlds import write_data
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.progress import progress
from trimtab.offline.states import LastPrompt, Predicts, load_states, represent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 40, pictured=True)


def out_of_memory_above(reader: Reader, samples: int) -> Any:
    """Make each forward over more than `samples` samples ask torch's own allocator for more than there is."""

    def hook(block: object, inputs: object) -> None:
        if len(inputs[0]) > samples:  # type: ignore[index]
            torch.empty(1 << 50)

    return reader.blocks[0].register_forward_pre_hook(hook)


def test_a_batch_that_does_not_fit_in_memory_is_read_in_halves(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    represent(llava_reader, data, Predicts(), [1], whole, limit=20, batch_size=10, max_new_tokens=8)
    hook = out_of_memory_above(llava_reader, 3)
    try:
        manifest = represent(
            llava_reader, data, Predicts(), [1], tmp_path / "halves", limit=20, batch_size=10, max_new_tokens=8
        )
    finally:
        hook.remove()
    assert manifest.complete
    before, after = load_states(whole, 1), load_states(tmp_path / "halves", 1)
    assert (before.sample_ids, before.labels) == (after.sample_ids, after.labels)
    np.testing.assert_allclose(before.values, after.values, atol=1e-4)


def test_what_does_not_fit_by_itself_is_skipped_with_the_reason(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    hook = out_of_memory_above(llava_reader, 0)
    try:
        with pytest.raises(DataError, match=r"5 samples were skipped .*does not fit in memory"):
            represent(llava_reader, data, LastPrompt(), [1], tmp_path / "none", limit=5)
    finally:
        hook.remove()


def test_a_fault_of_the_machine_ends_the_run_and_loses_no_sample(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    def hook(block: object, inputs: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    handle = llava_reader.blocks[0].register_forward_pre_hook(hook)
    try:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            represent(llava_reader, data, LastPrompt(), [1], tmp_path / "out", limit=5)
    finally:
        handle.remove()
    assert represent(llava_reader, data, LastPrompt(), [1], tmp_path / "out", limit=5, resume=True).rows == 5


def test_a_picture_that_the_processor_refuses_costs_one_sample_also_when_it_is_resumed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_qwen2_vl(tmp_path / "model")
    reader = Reader(tmp_path / "model")
    data = write_data(tmp_path / "data", 8, pictured=True)
    Image.new("RGB", (4100, 20)).save(tmp_path / "data" / "images" / "5.png")  # flatter than Qwen2-VL takes
    manifest = represent(reader, data, LastPrompt(), [1], tmp_path / "out", batch_size=4)
    (skipped,) = manifest.skipped
    assert skipped.id == "s5"
    assert "the model's processor refuses it" in skipped.reason
    assert "aspect ratio" in skipped.reason
    assert len(set(load_states(tmp_path / "out", 1).sample_ids)) == 7
    assert represent(reader, data, LastPrompt(), [1], tmp_path / "out", batch_size=4, resume=True) == manifest


def test_the_last_prompt_position_is_kept_whatever_the_answer_is(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    """Also an empty answer, one of signs alone, one that is cut before its first word ends, and none at all."""
    kept = {}
    for most in (0, 1, 16):
        out = tmp_path / str(most)
        manifest = represent(llava_reader, data, LastPrompt(), [1], out, max_new_tokens=most)
        assert (manifest.rows, manifest.skipped) == (40, ())
        kept[most] = load_states(out, 1)
        np.testing.assert_allclose(kept[most].values, kept[0].values, atol=1e-4)
    assert set(kept[0].labels) == {""}
    assert set(kept[0].tokens.tolist()) == {-1}
    assert any(kept[16].labels)
    with pytest.raises(SettingError, match="1 or more"):
        represent(llava_reader, data, Predicts(), [1], tmp_path / "out", max_new_tokens=0)


def test_pictures_that_are_all_missing_are_noticed_before_a_model_is_loaded(data: Path, tmp_path: Path) -> None:
    (data.parent / "images").rename(data.parent / "elsewhere")
    with pytest.raises(DataError, match="none of its 40 pictures is there"):
        represent(tmp_path / "no model", data, LastPrompt(), [1], tmp_path / "out")


def test_without_a_terminal_a_run_says_how_far_it_is(
    llava_reader: Reader, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    represent(llava_reader, data, LastPrompt(), [1], tmp_path / "out", limit=8, progress=True)
    assert capsys.readouterr().err.splitlines() == [
        "represent: 0 of 8 samples, begins",
        "represent: 8 of 8 samples, done",
    ]
    with progress("reading", 10, every=0) as advance:
        advance(5)
        advance(5)
    assert re.search(r"reading: 5 of 10 samples, about \d+ s left\n", capsys.readouterr().err)


def test_an_interrupted_run_says_what_it_keeps(
    llava_reader: Reader, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 0

    def interrupt(block: object, inputs: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise KeyboardInterrupt

    handle = llava_reader.blocks[0].register_forward_pre_hook(interrupt)
    asked = {"batch_size": 1, "max_new_tokens": 0}
    try:
        with pytest.raises(KeyboardInterrupt):
            represent(llava_reader, data, LastPrompt(), [1], tmp_path / "out", **asked, progress=True)  # type: ignore[arg-type]
    finally:
        handle.remove()
    assert "keeps 8 of 40 samples; run the same command with --resume to go on" in capsys.readouterr().err
