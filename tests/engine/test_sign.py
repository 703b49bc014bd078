"""A fine profile turns its source answers into its target, and touches nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, questions, scene_of, yes_no
from tests.engine.conftest import LAST
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.offline.concepts import class_means
from trimtab.offline.models.reader import Question
from trimtab.offline.states import LayerStates
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

PROFILE = "yes-to-no"


def test_a_row_points_from_the_source_answer_to_the_target(engine: Engine) -> None:
    asks = yes_no("yes", 40, max_tokens=1)
    asks = [ask for ask, answer in zip(asks, engine.ask(asks), strict=True) if answer.text.strip() == "yes"]
    assert len(asks) >= 20
    there = [answer.text.strip() for answer in engine.ask([ask.steered(PROFILE) for ask in asks])]
    back = [
        answer.text.strip() for answer in engine.ask([ask.steered({"profile": PROFILE, "alpha": -1}) for ask in asks])
    ]
    assert there.count("no") >= 0.9 * len(asks)
    assert back.count("yes") >= 0.9 * len(asks)


def test_the_sign_shows_in_every_log_probability(
    engine: Engine, reference: Reference, rows: dict[int, LayerStates]
) -> None:
    asks = [ask for ask in yes_no("yes", 20, full=True, max_tokens=1) if 0 in _steered_positions(reference, rows, ask)]
    assert len(asks) >= 10
    (yes,), (no,) = (reference.reader.tokenizer.encode(word, add_special_tokens=False) for word in ("yes", "no"))
    margins = []
    for alpha in (-0.5, 0.0, 0.5):
        answers = engine.ask([ask.steered({"profile": PROFILE, "alpha": alpha}) for ask in asks])
        margins.append([row[no] - row[yes] for row in (np.array(answer.logprobs)[0] for answer in answers)])
    back, plain, there = np.array(margins)
    assert (back < plain).all()
    assert (plain < there).all()


def test_answers_of_other_concepts_keep_their_bits(
    engine: Engine, reference: Reference, rows: dict[int, LayerStates]
) -> None:
    asked = [*yes_no("no", 8), *questions("number", 8), *questions("other", 8)]
    asks = [replace(ask, full=True) for ask in asked if not _steered_positions(reference, rows, ask)]
    assert len(asks) >= 12
    engine.forget()
    unsteered = engine.ask(asks)
    engine.forget()
    steered = engine.ask([ask.steered(PROFILE) for ask in asks])
    assert [answer.tokens for answer in steered] == [answer.tokens for answer in unsteered]
    assert [answer.logprobs for answer in steered] == [answer.logprobs for answer in unsteered]


def test_the_row_of_the_source_is_the_only_one_that_is_not_zero(
    registry: Registry, rows: dict[int, LayerStates]
) -> None:
    vectors = registry[PROFILE].tensors[LAST].named["vectors"]
    used = [class_means(rows[LAST]).labels[row] for row in np.flatnonzero(np.abs(vectors).max(axis=1))]
    assert used == ["yes"]


def _steered_positions(reference: Reference, rows: dict[int, LayerStates], ask: Ask) -> list[int]:
    """The positions of an unsteered answer whose nearest concept is "yes", 0 being the last of the prompt."""
    image = None if ask.scene is None else draw(scene_of(ask.scene))
    (reading,) = reference.reader.read([Question(ask.text, image)], (LAST,), ask.max_tokens)
    concepts = class_means(rows[LAST])
    nearest: npt.NDArray[np.int64] = concepts.nearest(reading.stream[LAST])
    return [position for position, concept in enumerate(nearest) if concepts.labels[concept] == "yes"]
