"""Speculative decoding: a drafter proposes, the steered model decides, and its answers are those it gives without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from tests.engine.asking import Ask, caption, questions, yes_no
from tests.engine.engine import Engine
from tests.engine.reference import Reference

pytestmark = pytest.mark.engine

NAMES = [
    f"{kind}-{at}" for kind in ("coarse", "fine") for at in ("middle-answer", "middle-all", "last-answer", "last-all")
]
LONG = "is there a red ball? are there two blue stars? who is there? " * 4


@pytest.fixture(scope="module")
def draft(reference: Reference, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LLaVA's own text decoder as a Llama, with noise in its weights so that it is wrong now and then."""
    folder = tmp_path_factory.mktemp("draft") / "model"
    llava = reference.reader.model
    llama = LlamaForCausalLM(llava.config.text_config)
    llama.model.load_state_dict(llava.model.language_model.state_dict())
    llama.lm_head.load_state_dict(llava.lm_head.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in llama.model.layers.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.1)
    llama.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["ngram", "draft_model"])
def speculating(
    request: pytest.FixtureRequest,
    model: Path,
    profiles: Path,
    draft: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    drafter: dict[str, Any] = {"method": request.param, "num_speculative_tokens": 3}
    drafter |= {"prompt_lookup_max": 2, "prompt_lookup_min": 1} if request.param == "ngram" else {"model": str(draft)}
    log = tmp_path_factory.mktemp("log") / f"{request.param}.log"
    with Engine(log, model, profiles, speculative_config=drafter) as running:
        yield running


def _mixed(count: int) -> list[Ask]:
    """All profiles, both signs, and none, with pictures and without."""
    plain = [
        Ask(LONG),
        caption(1),
        Ask("who is there?"),
        *questions("number", 1),
        caption(2),
        yes_no("yes", 1)[0],
        *questions("other", 2),
    ]
    steerings: list[Any] = [None, *({"profile": name, "alpha": alpha} for name in NAMES for alpha in (1.0, -1.5))]
    return [
        replace(plain[number % len(plain)], steering=steerings[number % len(steerings)], max_tokens=20, ignore_eos=True)
        for number in range(count)
    ]


def test_a_steered_answer_is_the_one_without_speculation(engine: Engine, speculating: Engine) -> None:
    asks = _mixed(17)
    before = speculating.call("speculated")
    speculating.forget()
    answers = speculating.ask([replace(ask, late=number // 3) for number, ask in enumerate(asks)])
    after = speculating.call("speculated")
    drafted, accepted = (after[name] - before[name] for name in ("draft", "accepted"))
    print("drafted", drafted, "accepted", accepted)
    engine.forget()
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in engine.ask(asks)]
    assert 0 < accepted < drafted


def test_each_step_of_a_speculating_engine_has_the_distribution_without_speculation(
    engine: Engine, speculating: Engine
) -> None:
    asks = [replace(ask, full=True, max_tokens=8) for ask in _mixed(9)]
    engine.forget()
    speculating.forget()
    for here, there in zip(speculating.ask(asks), engine.ask(asks), strict=True):
        assert here.tokens == there.tokens
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=1e-4)


def test_the_drafter_is_never_armed(speculating: Engine) -> None:
    armed = speculating.call("armed")
    print(armed)
