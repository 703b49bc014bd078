"""Qwen2-VL is served and steered as transformers computes it: pictures of any size, several of them, and videos.

Its positions are three numbers per token, a picture takes as many tokens as its size asks for, and both must leave
steering where it belongs. A tiny random checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.architectures import qwen2_vl
from tests.engine.engine import Engine
from tests.engine.pictured import Pictures, Shown, differences, random_profiles, show
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

WIDE, TALL, SMALL = (90, 70, 0), (60, 130, 1), (30, 30, 2)  # of 6, 8 and 1 tokens
SHORT, LONG = (60, 60, 3, 4), (60, 90, 4, 6)  # videos of 4 and of 6 frames
ASKS = [
    Shown(("who is there?",)),
    Shown((WIDE, "What is it?")),
    Shown((TALL, WIDE, SMALL, "What differs?")),
    Shown(("First ", SMALL, " then ", TALL, "and?")),
]
FILMED = [Shown((SHORT, "What happens?")), Shown((TALL, LONG, "then ", WIDE, "what happens?", SHORT))]
STEERINGS = [
    {"profile": f"{kind}-{layer}", "alpha": alpha}
    for kind, alpha in (("coarse", 1.0), ("fine", -1.5))
    for layer in (0, 1, 3)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_vl.build(tmp_path_factory.mktemp("qwen2_vl") / "model")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Pictures:
    return Pictures(folder)


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    profiles = tmp_path_factory.mktemp("profiles")
    random_profiles(profiles, folder)
    return profiles


@pytest.fixture(scope="module")
def registry(made: Path) -> Registry:
    return Registry.open(made)


@pytest.fixture(scope="module")
def running(folder: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("log") / "qwen2_vl.log", folder, made) as engine:
        yield engine


def test_answers_are_those_of_transformers(running: Engine, reference: Pictures, registry: Registry) -> None:
    for asks in ([*ASKS, *FILMED], [replace(ask, chat=True) for ask in ASKS]):
        assert max(differences(reference, registry, asks, show(running, asks))) < 1e-4


@pytest.mark.parametrize("steering", STEERINGS, ids=lambda steering: steering["profile"])
def test_steered_answers_are_those_of_transformers_with_the_vector_added(
    running: Engine, reference: Pictures, registry: Registry, steering: dict[str, object]
) -> None:
    asks = [ask.steered(steering) for ask in (*ASKS[1:], *FILMED)]
    answers = show(running, asks)
    assert max(differences(reference, registry, asks, answers)) < 1e-4
    for ask, answer in zip(asks, answers, strict=True):
        unsteered = reference.logprobs(ask, answer.tokens)
        assert np.abs(np.array(answer.logprobs) - unsteered).max() > 1e-2


@pytest.mark.parametrize("ask", [ASKS[2], *FILMED])
def test_all_that_pictures_and_videos_fill_counts_as_image(reference: Pictures, ask: Shown) -> None:
    inputs = reference.reader.processor(
        text=[reference.text(ask)], images=ask.media(3) or None, videos=ask.media(4) or None, return_tensors="pt"
    )
    grids = [grid for name in ("image_grid_thw", "video_grid_thw") for grid in inputs.get(name, torch.empty(0, 3))]
    assert len(reference.positions(ask, "image")) == sum(int(grid.prod()) // 4 for grid in grids) > 0


def test_a_mixed_batch_is_answered_as_each_alone_and_by_cached_blocks(
    running: Engine, reference: Pictures, registry: Registry
) -> None:
    asks = [ask.steered(steering) for steering in (None, *STEERINGS[1::2]) for ask in (*ASKS[1:3], FILMED[1])]
    running.forget()
    together = show(running, asks)
    assert max(differences(reference, registry, asks, together)) < 1e-4
    again = show(running, asks)
    assert sum(answer.cached for answer in again) > sum(answer.cached for answer in together)
    assert max(differences(reference, registry, asks, again)) < 1e-4


def test_other_pictures_under_the_same_text_are_other_prompts(
    running: Engine, reference: Pictures, registry: Registry
) -> None:
    text = "What is to be seen here, and which of them is larger?"
    asks = [Shown((*pictures, text)) for pictures in ((WIDE, TALL), (TALL, WIDE), (WIDE, (60, 130, 9)))]
    running.forget()
    answers = [show(running, [ask])[0] for ask in asks]
    assert max(differences(reference, registry, asks, answers)) < 1e-4
    first, *others = (np.array(answer.logprobs[0]) for answer in answers)
    assert all(np.abs(first - other).max() > 1e-2 for other in others)


@pytest.mark.slow
def test_a_compiled_engine_is_equal_too(
    folder: Path, made: Path, reference: Pictures, registry: Registry, tmp_path: Path
) -> None:
    env = {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    asks = [*ASKS, *FILMED, *(ask.steered(steering) for steering in STEERINGS for ask in (ASKS[2], FILMED[1]))]
    with Engine(tmp_path / "compiled.log", folder, made, env=env, enforce_eager=False) as engine:
        assert max(differences(reference, registry, asks, show(engine, asks))) < 1e-4
