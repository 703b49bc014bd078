"""Idefics2, which trimtab brings, is served and steered as transformers computes it: a tiny random checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.architectures import idefics2
from tests.engine.engine import Engine, RefusedError
from tests.engine.pictured import Pictures, Shown, differences, random_profiles, show
from trimtab.offline.models.chat import Chat, ChatTemplate
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

WIDE, TALL, FLAT = (90, 70, 0), (50, 120, 1), (130, 40, 2)  # TALL fills the tower's 27 patches from top to bottom
ASKS = [
    Shown(("who is there?",)),
    Shown((WIDE, "What is it?")),
    Shown((TALL, "\nWhat is it?")),
    Shown((TALL, WIDE, "What differs?")),
    Shown(("First ", FLAT, " then ", TALL, "and?")),
    Shown((WIDE, FLAT, TALL, FLAT, "<odd")),
]
STEERINGS = [
    {"profile": f"{kind}-{layer}", "alpha": alpha}
    for kind, alpha in (("coarse", 1.0), ("fine", -1.5))
    for layer in (0, 1, 3)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idefics2.build(tmp_path_factory.mktemp("idefics2") / "whole")


@pytest.fixture(scope="module")
def splitting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights; every picture is read as four quarters and the whole."""
    return idefics2.build(tmp_path_factory.mktemp("idefics2") / "split", splitting=True)


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
    with Engine(tmp_path_factory.mktemp("log") / "idefics2.log", folder, made) as engine:
        yield engine


@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_those_of_transformers(
    running: Engine, reference: Pictures, registry: Registry, chat: bool
) -> None:
    asks = [replace(ask, chat=chat) for ask in ASKS]
    assert max(differences(reference, registry, asks, show(running, asks))) < 1e-4


@pytest.mark.parametrize("steering", STEERINGS, ids=lambda steering: steering["profile"])
def test_steered_answers_are_those_of_transformers_with_the_vector_added(
    running: Engine, reference: Pictures, registry: Registry, steering: dict[str, object]
) -> None:
    asks = [ask.steered(steering) for ask in ASKS[1:5]]
    answers = show(running, asks)
    assert max(differences(reference, registry, asks, answers)) < 1e-4
    for ask, answer in zip(asks, answers, strict=True):
        unsteered = reference.logprobs(ask, answer.tokens)
        assert np.abs(np.array(answer.logprobs) - unsteered).max() > 1e-2


def test_a_mixed_batch_is_answered_as_each_alone_and_by_cached_blocks(
    running: Engine, reference: Pictures, registry: Registry
) -> None:
    asks = [ask.steered(steering) for steering in (None, *STEERINGS[1::2]) for ask in ASKS[1:4]]
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
    asks = [Shown((*pictures, text)) for pictures in ((WIDE, TALL), (TALL, WIDE), (WIDE, (90, 70, 9)))]
    running.forget()
    answers = [show(running, [ask])[0] for ask in asks]
    assert max(differences(reference, registry, asks, answers)) < 1e-4
    first, *others = (np.array(answer.logprobs[0]) for answer in answers)
    assert all(np.abs(first - other).max() > 1e-2 for other in others)


def test_a_request_may_split_its_pictures(running: Engine, splitting: Path, registry: Registry) -> None:
    asks = [replace(ask, settings={"do_image_splitting": True}) for ask in ASKS[1:4]]
    split = [replace(ask, settings={}) for ask in asks]  # told by the checkpoint, as transformers wants it
    assert max(differences(Pictures(splitting), registry, split, show(running, asks))) < 1e-4


def test_pictures_smaller_than_a_patch_are_one_requests_error(running: Engine) -> None:
    with pytest.raises(RefusedError, match="3 x 2 pixels is smaller than one patch, 4 x 4"):
        show(running, [Shown(((3, 2, 0), "what?"), settings={"do_resize": False})])
    assert len(show(running, ASKS[:2])) == 2


def test_a_template_of_strings_gets_the_picture_before_the_text(
    running: Engine, reference: Pictures, tmp_path: Path
) -> None:
    file = tmp_path / "strings.jinja"
    file.write_text("{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}assistant:")
    (answer,) = show(running, [Shown((WIDE, "What?"), chat=True, template=file.read_text())])
    processor = reference.reader.processor
    prompt = Chat(processor.tokenizer, processor, ChatTemplate(file)).prompt("What?", pictured=True)
    assert prompt == "user: <image>\nWhat?\nassistant:"
    assert answer.prompt == processor(text=prompt, add_special_tokens=False)["input_ids"][0]


@pytest.mark.slow
def test_a_compiled_engine_that_splits_its_pictures_is_equal_too(
    splitting: Path, made: Path, registry: Registry, tmp_path: Path
) -> None:
    env = {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    asks = [*ASKS, *(ask.steered(steering) for steering in STEERINGS for ask in ASKS[1:4])]
    with Engine(tmp_path / "compiled.log", splitting, made, env=env, enforce_eager=False) as engine:
        assert max(differences(Pictures(splitting), registry, asks, show(engine, asks))) < 1e-4
