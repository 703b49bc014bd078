"""More processes than one: tensor-parallel ranks and data-parallel replicas steer as a single process does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.asking import Ask, caption, questions, yes_no
from tests.engine.engine import Engine

pytestmark = pytest.mark.engine

_STEERINGS: list[Any] = [
    "coarse-middle-all",
    None,
    {"profile": "fine-last-answer", "alpha": 1.5},
    "fine-middle-answer",
    "yes-to-no",
    {"profile": "coarse-last-answer", "alpha": -2},
    "fine-middle-all",
]
ASKS = [
    replace(ask, steering=steering, max_tokens=4, late=number // 4)
    for number, (ask, steering) in enumerate(
        zip(
            (
                caption(1),
                caption(1),
                *questions("number", 1),
                *questions("other", 1),
                *yes_no("yes", 1),
                caption(2),
                Ask("is there a red ball? who is there?"),
            ),
            _STEERINGS,
            strict=True,
        )
    )
]


@pytest.fixture
def even(model: Path, tmp_path: Path) -> Path:
    """The same weights read as two heads where there were three: another model, that two processes can share."""
    folder = shutil.copytree(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 96}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_two_tensor_parallel_processes_give_the_tokens_of_one(even: Path, profiles: Path, tmp_path: Path) -> None:
    two_processes: dict[str, Any] = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    with Engine(tmp_path / "two.log", even, profiles, env={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}, **two_processes) as two:
        answers = two.ask(ASKS)
    with Engine(tmp_path / "one.log", even, profiles) as one:
        expected, unsteered = (one.ask(asks) for asks in (ASKS, [ask.steered(None) for ask in ASKS]))
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    assert sum(here.tokens != there.tokens for here, there in zip(expected, unsteered, strict=True)) >= 4
