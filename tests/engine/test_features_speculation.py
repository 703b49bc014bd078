"""Speculative decoding: a drafter proposes, the steered model decides; its answers are those without a drafter."""

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
from tests.engine.engine import V2, Engine
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


def test_the_drafter_is_never_armed(speculating: Engine, request: pytest.FixtureRequest) -> None:
    drafter = speculating.call("drafter")
    if request.node.callspec.params["speculating"] == "ngram":
        assert drafter == []  # it looks words up
        return
    assert "vllm.model_executor.models.llama.LlamaDecoderLayer" in drafter
    # Its outermost class comes from our registry like every Llama's; nothing inside does.
    assert {name for name in drafter if "trimtab" in name} <= {"trimtab.plugin.engine.LlamaForCausalLM"}


@pytest.mark.parametrize("name", ["coarse-middle-all", "coarse-last-answer"])
def test_the_next_turn_reuses_blocks_of_accepted_tokens_and_is_told_the_same(speculating: Engine, name: str) -> None:
    speculating.forget()
    (first,) = speculating.ask([Ask(LONG, max_tokens=60, ignore_eos=True, steering=name)])
    following = Ask(ids=(*first.prompt, *first.tokens, *first.prompt[:7]), max_tokens=8, ignore_eos=True)
    (warm,) = speculating.ask([following.steered(name)])
    assert warm.cached > len(first.prompt)
    speculating.forget()
    (cold,) = speculating.ask([following.steered(name)])
    assert (cold.cached, cold.tokens) == (0, warm.tokens)


def test_model_runner_v2_with_a_draft_model_gives_the_same_answers(
    engine: Engine, model: Path, profiles: Path, draft: Path, tmp_path: Path
) -> None:
    # Only this drafter: Triton's interpreter cannot run V2's n-gram kernel ("mask has unsupported dtype").
    asks = [replace(ask, max_tokens=6) for ask in _mixed(6)]
    drafter = {"method": "draft_model", "num_speculative_tokens": 3, "model": str(draft)}
    with Engine(tmp_path / "v2.log", model, profiles, env=V2, speculative_config=drafter) as v2:
        assert v2.call("runner")["state"].startswith("Steered")
        answers, counted = v2.ask(asks), v2.call("speculated")
    engine.forget()
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in engine.ask(asks)]
    assert 0 < counted["accepted"] < counted["draft"]
