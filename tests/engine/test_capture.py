"""Captured rows are those that transformers has, whatever else goes on in the engine."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, Refusal, questions, scene_of
from tests.engine.captured import ASKS, LAYERS, TEXT, capture, check
from tests.engine.conftest import LAST, MIDDLE
from tests.engine.engine import V2, Engine, RefusedError
from tests.engine.reference import Reference
from tests.offline.odd_pictures import ODD
from trimtab.offline.states import LastPrompt, load_states, represent

pytestmark = pytest.mark.engine

KINDS = ("last_prompt", "prompt", "answer", "all", "image", "text")


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
def apart(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Its worker lies in a process of its own, as a server's does."""
    log = tmp_path_factory.mktemp("log") / "capturing-apart.log"
    with Engine(log, model, None, capture=LAYERS, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_mixed_batch_are_those_of_transformers(
    capturing: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    check(reference, kind, ASKS, capture(capturing, ASKS, kind, tmp_path))


@pytest.mark.parametrize("kind", ["all", "prompt", "image", "answer"])
def test_a_warm_prefix_cache_hides_no_row(capturing: Engine, reference: Reference, kind: str, tmp_path: Path) -> None:
    capturing.forget()
    capturing.ask(ASKS)
    assert all(answer.cached > 0 for answer in capturing.ask([ask for ask in ASKS if ask.scene is not None]))
    check(reference, kind, ASKS, capture(capturing, ASKS, kind, tmp_path))


def test_blocks_of_a_capturing_request_are_shared_with_others(capturing: Engine, tmp_path: Path) -> None:
    capturing.forget()
    capture(capturing, ASKS[:1], "all", tmp_path)
    assert capturing.ask(ASKS[:1])[0].cached > 0


@pytest.mark.parametrize("kind", ["all", "answer", "text"])
def test_prompts_in_pieces_and_preempted_requests_give_every_row_once(
    tight: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    asks = [replace(ask, max_tokens=60, ignore_eos=True) for ask in ASKS]
    before = tight.call("preemptions")
    found = capture(tight, asks, kind, tmp_path)
    assert tight.call("preemptions") > before
    check(reference, kind, asks, found)


def test_answers_are_unchanged_by_capture(capturing: Engine, engine: Engine, tmp_path: Path) -> None:
    expected = [answer.tokens for answer in engine.ask(ASKS)]
    assert [rows.tokens for rows in capture(capturing, ASKS, "all", tmp_path)] == expected
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
    before, after = (capture(capturing, [replace(ask, max_tokens=1)], "all", tmp_path)[0] for ask in (plain, steered))
    vector = registry["coarse-middle-all"].tensors[MIDDLE].named["vector"]
    np.testing.assert_allclose(after.layers[0], before.layers[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        after.layers[MIDDLE] - before.layers[MIDDLE], 0.5 * vector[None] + 0 * before.layers[0], rtol=0, atol=1e-4
    )


def test_rows_are_kept_until_they_are_taken_and_go_with_an_aborted_request(capturing: Engine, tmp_path: Path) -> None:
    assert capturing.call("kept") == {}
    capture(capturing, ASKS, "all", tmp_path)
    assert capturing.call("kept") == {}
    asks = [replace(ask, extra={"capture": {"positions": "all"}}, max_tokens=30, ignore_eos=True) for ask in ASKS]
    before, after = capturing.call("abandon", asks=[ask.to_json() for ask in asks], steps=4)
    prompts = [len(answer.prompt) for answer in capturing.ask(ASKS)]
    a_row = 4 * 192 * len(LAYERS)
    assert [kept // a_row for kept in before.values()] == [length + 3 for length in prompts]  # four steps
    assert after == {}


def test_a_failed_capture_leaves_nothing_behind(capturing: Engine, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="n at 1"):
        capture(capturing, [*ASKS, replace(ASKS[0], n=2)], "all", tmp_path)
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
    captured = capture(capturing, asks, "last_prompt", tmp_path / "served")
    for layer in (MIDDLE, LAST):
        offline = load_states(tmp_path / "offline", layer)
        assert offline.sample_ids == tuple(ODD)
        served = np.concatenate([rows.layers[layer] for rows in captured])
        scale = np.linalg.norm(served, axis=1) * np.linalg.norm(offline.values, axis=1)
        assert ((served * offline.values).sum(axis=1) / scale >= 0.9999).all()
        np.testing.assert_allclose(served, offline.values, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("kind", ["all", "answer"])
def test_an_engine_in_another_process_hands_out_the_same_rows(
    apart: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    apart.forget()
    found = capture(apart, ASKS, kind, tmp_path)
    check(reference, kind, ASKS, found)
    assert [rows.tokens for rows in found] == [answer.tokens for answer in apart.ask(ASKS)]
    assert apart.call("kept") == {}


def test_model_runner_v2_hands_out_the_same_rows(
    model: Path, reference: Reference, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asks = [replace(ask, max_tokens=min(ask.max_tokens, 3)) for ask in ASKS[:4]]
    with Engine(tmp_path_factory.mktemp("log") / "capturing-v2.log", model, None, capture=LAYERS, env=V2) as v2:
        v2.ask(asks[:1])
        for kind in ("all", "answer"):
            check(reference, kind, asks, capture(v2, asks, kind, tmp_path))
        assert v2.call("kept") == {}
