"""Captured rows are those that transformers has, whatever else goes on in the engine."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, Refusal, caption, questions, scene_of
from tests.engine.conftest import LAST, MIDDLE
from tests.engine.engine import V2, Engine, RefusedError
from tests.engine.reference import Reference
from tests.offline.odd_pictures import ODD
from trimtab.offline.states import LastPrompt, load_states, represent

pytestmark = pytest.mark.engine

LAYERS = (0, MIDDLE, LAST)
IMAGE = 64
TEXT = Ask("is there a red ball? are there two blue stars? " * 6, max_tokens=20, ignore_eos=True)
ASKS = [
    caption(3, max_tokens=12),
    replace(questions("number", 1)[0], max_tokens=1),
    TEXT,
    replace(questions("other", 2)[1], max_tokens=4),
    Ask("who is there?", max_tokens=7, ignore_eos=True),
    caption(4, max_tokens=33, ignore_eos=True),
]
KINDS = ("last_prompt", "prompt", "answer", "all", "image", "text")


@dataclass(frozen=True)
class Rows:
    prompt: list[int]
    tokens: list[int]
    positions: npt.NDArray[np.int64]
    layers: dict[int, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def capturing(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    log = tmp_path_factory.mktemp("log") / "capturing.log"
    with Engine(log, model, profiles, capture=LAYERS) as running:
        yield running


@pytest.fixture(scope="module")
def tight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """32 tokens a step and 16 blocks of KV cache: prompts are read in pieces, and requests go back to the queue."""
    log = tmp_path_factory.mktemp("log") / "capturing-tight.log"
    small: dict[str, Any] = {"max_num_batched_tokens": 32, "max_num_seqs": 8, "num_gpu_blocks_override": 16}
    with Engine(log, model, None, capture=LAYERS, max_model_len=256, **small) as running:
        yield running


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Its worker lies in a process of its own, as a server's does."""
    folder = tmp_path_factory.mktemp("compiled")
    env = {"VLLM_CACHE_ROOT": str(folder / "cache"), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with Engine(folder / "log", model, None, capture=LAYERS, env=env, enforce_eager=False) as running:
        yield running


def _capture(engine: Engine, asks: Sequence[Ask], positions: str, folder: Path) -> list[Rows]:
    folder.mkdir(exist_ok=True)
    rows = []
    for one in engine.call("capture", asks=[ask.to_json() for ask in asks], positions=positions, out=str(folder)):
        arrays = dict(np.load(one["path"]))
        rows.append(
            Rows(
                one["prompt"],
                one["tokens"],
                arrays.pop("positions"),
                {int(layer): values for layer, values in arrays.items()},
            )
        )
    return rows


@torch.inference_mode()
def _expected(reference: Reference, ask: Ask, tokens: Sequence[int]) -> dict[int, npt.NDArray[np.float32]]:
    """The stream after each block at every position of prompt and answer, [P + n - 1, D], by hooks in transformers."""
    found: dict[int, npt.NDArray[np.float32]] = {}

    def keep(layer: int) -> Any:
        def hook(block: Any, inputs: Any, output: Any) -> None:
            found[layer] = (output if isinstance(output, torch.Tensor) else output[0])[0].numpy()

        return hook

    handles = [reference.reader.blocks[layer].register_forward_hook(keep(layer)) for layer in LAYERS]
    try:
        reference.logprobs(ask, tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _wanted(kind: str, ask: Ask, rows: Rows) -> list[int]:
    """The positions of a kind, written down once more."""
    length, end = len(rows.prompt), len(rows.prompt) + len(rows.tokens) - 1
    image_token = max(set(rows.prompt), key=rows.prompt.count)
    image = {p for p in range(length) if ask.scene is not None and rows.prompt[p] == image_token}
    assert len(image) == (0 if ask.scene is None else IMAGE)
    return {
        "last_prompt": [length - 1],
        "prompt": list(range(length - 1)),
        "answer": list(range(length - 1, end)),
        "all": list(range(end)),
        "image": sorted(image),
        "text": [p for p in range(length) if p not in image],
    }[kind]


def _check(reference: Reference, kind: str, asks: Sequence[Ask], found: Sequence[Rows]) -> None:
    for ask, rows in zip(asks, found, strict=True):
        assert rows.positions.tolist() == _wanted(kind, ask, rows)
        expected = _expected(reference, ask, rows.tokens)
        assert sorted(rows.layers) == sorted(expected)
        for layer, values in rows.layers.items():
            wanted = expected[layer][rows.positions]
            assert values.dtype == np.float32
            assert values.shape == wanted.shape
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=2e-4)
            scale = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted, axis=1)
            assert ((values * wanted).sum(axis=1) / scale >= 0.9999).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_mixed_batch_are_those_of_transformers(
    capturing: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    _check(reference, kind, ASKS, _capture(capturing, ASKS, kind, tmp_path))


@pytest.mark.parametrize("kind", ["all", "prompt", "image", "answer"])
def test_a_warm_prefix_cache_hides_no_row(capturing: Engine, reference: Reference, kind: str, tmp_path: Path) -> None:
    capturing.forget()
    capturing.ask(ASKS)
    assert all(answer.cached > 0 for answer in capturing.ask([ask for ask in ASKS if ask.scene is not None]))
    _check(reference, kind, ASKS, _capture(capturing, ASKS, kind, tmp_path))


def test_blocks_of_a_capturing_request_are_shared_with_others(capturing: Engine, tmp_path: Path) -> None:
    capturing.forget()
    _capture(capturing, ASKS[:1], "all", tmp_path)
    assert capturing.ask(ASKS[:1])[0].cached > 0


@pytest.mark.parametrize("kind", ["all", "answer", "text"])
def test_prompts_in_pieces_and_preempted_requests_give_every_row_once(
    tight: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    asks = [replace(ask, max_tokens=60, ignore_eos=True) for ask in ASKS]
    before = tight.call("preemptions")
    found = _capture(tight, asks, kind, tmp_path)
    assert tight.call("preemptions") > before
    _check(reference, kind, asks, found)


def test_answers_are_unchanged_by_capture(capturing: Engine, engine: Engine, tmp_path: Path) -> None:
    expected = [answer.tokens for answer in engine.ask(ASKS)]
    assert [rows.tokens for rows in _capture(capturing, ASKS, "all", tmp_path)] == expected
    assert [answer.tokens for answer in capturing.ask(ASKS)] == expected
    full = [replace(ask, full=True, max_tokens=2, extra={"capture": {"positions": "all"}}) for ask in ASKS]
    for ask, captured in zip(full, capturing.ask(full), strict=True):
        (plain,) = capturing.ask([replace(ask, extra={})])
        np.testing.assert_allclose(captured.logprobs, plain.logprobs, rtol=0, atol=1e-4)
    capturing.call("release")


def test_a_steered_request_hands_out_what_the_next_layer_reads(
    capturing: Engine, registry: Any, tmp_path: Path
) -> None:
    plain, steered = ASKS[0], ASKS[0].steered({"profile": "coarse-middle-all", "alpha": 0.5})
    before, after = (_capture(capturing, [replace(ask, max_tokens=1)], "all", tmp_path)[0] for ask in (plain, steered))
    vector = registry["coarse-middle-all"].tensors[MIDDLE].named["vector"]
    np.testing.assert_allclose(after.layers[0], before.layers[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        after.layers[MIDDLE] - before.layers[MIDDLE], 0.5 * vector[None] + 0 * before.layers[0], rtol=0, atol=1e-4
    )


def test_rows_are_kept_until_they_are_taken_and_go_with_an_aborted_request(capturing: Engine, tmp_path: Path) -> None:
    assert capturing.call("kept") == {}
    _capture(capturing, ASKS, "all", tmp_path)
    assert capturing.call("kept") == {}
    asks = [replace(ask, extra={"capture": {"positions": "all"}}, max_tokens=30, ignore_eos=True) for ask in ASKS]
    before, after = capturing.call("abandon", asks=[ask.to_json() for ask in asks], steps=4)
    prompts = [len(answer.prompt) for answer in capturing.ask(ASKS)]
    a_row = 4 * 192 * len(LAYERS)
    assert [kept // a_row for kept in before.values()] == [length + 3 for length in prompts]  # four steps
    assert after == {}


def test_a_failed_capture_leaves_nothing_behind(capturing: Engine, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="n at 1"):
        _capture(capturing, [*ASKS, replace(ASKS[0], n=2)], "all", tmp_path)
    assert capturing.call("kept") == {}
    assert len(capturing.ask(ASKS)) == len(ASKS)


def test_an_interrupted_capture_leaves_nothing_behind_but_what_others_have_yet_to_take(capturing: Engine) -> None:
    other = replace(ASKS[4], extra={"capture": {"positions": "last_prompt"}})
    capturing.ask([other])
    waiting = capturing.call("kept")
    assert len(waiting) == 1
    asks = [replace(ask, max_tokens=30, ignore_eos=True) for ask in ASKS]
    before, after, busy = capturing.call("interrupt", asks=[ask.to_json() for ask in asks], steps=3)
    assert len(before) == len(ASKS) + 1
    assert after == waiting
    assert not busy
    capturing.call("release")
    assert len(capturing.ask(ASKS)) == len(ASKS)


@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        ("all", "capture", "object"),
        ({}, "capture.positions", "last_prompt, prompt, answer, all, image, text"),
        ({"positions": "every"}, "capture.positions", "'every'"),
        ({"positions": ["all"]}, "capture.positions", "last_prompt"),
        ({"positions": "all", "layer": 3}, "capture.layer", "'layer'"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(capturing: Engine, value: Any, param: str, message: str) -> None:
    refused, served = capturing.try_all([replace(ASKS[1], extra={"capture": value}), ASKS[1]])
    assert isinstance(refused, Refusal)
    assert (refused.kind, refused.param) == ("VLLMValidationError", param)
    assert message in refused.message
    assert not isinstance(served, Refusal)


def test_the_reserved_key_and_an_engine_without_capture_are_refused(capturing: Engine, engine: Engine) -> None:
    (forged,) = capturing.try_all([replace(ASKS[1], extra={"trimtab_capture": {"key": "0", "spans": [[0, 9]]}})])
    (bare,) = engine.try_all([replace(ASKS[1], extra={"capture": {"positions": "all"}})])
    assert isinstance(forged, Refusal)
    assert isinstance(bare, Refusal)
    assert "reserved" in forged.message
    assert "not started for capture" in bare.message


def test_written_rows_are_those_that_offline_makes(capturing: Engine, reference: Reference, tmp_path: Path) -> None:
    asks = [
        replace(ask, max_tokens=16, ignore_eos=False) for ask in (*questions("number", 3), *questions("other", 3), TEXT)
    ]
    (tmp_path / "images").mkdir()
    with (tmp_path / "data.jsonl").open("w") as file:
        for number, ask in enumerate(asks):
            sample = {"id": str(number), "question": ask.text}
            if ask.scene is not None:
                sample["image"] = f"images/{number}.png"
                draw(scene_of(ask.scene)).save(tmp_path / sample["image"])
            file.write(json.dumps(sample) + "\n")
    represent(reference.reader, tmp_path / "data.jsonl", LastPrompt(), (MIDDLE, LAST), tmp_path / "offline")
    capturing.call("write_states", asks=[ask.to_json() for ask in asks], folder=str(tmp_path / "served"))
    for layer in (MIDDLE, LAST):
        served, offline = (load_states(tmp_path / name, layer) for name in ("served", "offline"))
        assert served.manifest.request.model == offline.manifest.request.model
        for name in ("labels", "sample_ids"):
            assert getattr(served, name) == getattr(offline, name)
        for name in ("tokens", "positions"):
            assert getattr(served, name).tolist() == getattr(offline, name).tolist()
        np.testing.assert_allclose(served.values, offline.values, rtol=1e-4, atol=2e-4)


def test_a_picture_of_any_kind_gives_the_rows_of_represent(
    capturing: Engine, reference: Reference, tmp_path: Path
) -> None:
    """What `represent` decodes is what vLLM decodes: turned by EXIF, transparent, of a palette, an MPO, …"""
    asks = []
    with (tmp_path / "data.jsonl").open("w") as file:
        for name, content in ODD.items():
            (tmp_path / name).write_bytes(content())
            url = "data:image/x;base64," + b64encode((tmp_path / name).read_bytes()).decode()
            asks.append(Ask("how many balls?", url=url, max_tokens=4))
            file.write(json.dumps({"id": name, "question": asks[-1].text, "image": name}) + "\n")
    represent(reference.reader, tmp_path / "data.jsonl", LastPrompt(), (MIDDLE, LAST), tmp_path / "offline")
    captured = _capture(capturing, asks, "last_prompt", tmp_path / "served")
    for layer in (MIDDLE, LAST):
        offline = load_states(tmp_path / "offline", layer)
        assert offline.sample_ids == tuple(ODD)
        served = np.concatenate([rows.layers[layer] for rows in captured])
        scale = np.linalg.norm(served, axis=1) * np.linalg.norm(offline.values, axis=1)
        assert ((served * offline.values).sum(axis=1) / scale >= 0.9999).all()
        np.testing.assert_allclose(served, offline.values, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("kind", ["all", "answer"])
def test_a_compiled_engine_in_another_process_hands_out_the_same_rows(
    compiled: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    compiled.forget()
    found = _capture(compiled, ASKS, kind, tmp_path)
    _check(reference, kind, ASKS, found)
    assert [rows.tokens for rows in found] == [answer.tokens for answer in compiled.ask(ASKS)]
    assert compiled.call("kept") == {}


def test_model_runner_v2_hands_out_the_same_rows(
    model: Path, reference: Reference, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asks = [replace(ask, max_tokens=min(ask.max_tokens, 3)) for ask in ASKS[:4]]
    with Engine(tmp_path_factory.mktemp("log") / "capturing-v2.log", model, None, capture=LAYERS, env=V2) as v2:
        v2.ask(asks[:1])
        for kind in ("all", "answer"):
            _check(reference, kind, asks, _capture(v2, asks, kind, tmp_path))
        assert v2.call("kept") == {}
