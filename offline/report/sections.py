"""From a finding to the parts of its section, and in which order a reader meets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..findings import (
    AnswersFound,
    ChoiceFound,
    ConceptsFound,
    DriftFound,
    ExperimentFound,
    Finding,
    ShiftFound,
    SweepFound,
    TableFound,
)
from .parts import Part
from .pictures import Pictures
from .show_concepts import choice_parts, concepts_parts
from .show_experiment import experiment_parts
from .show_shift import drift_parts, shift_parts
from .show_steering import answers_parts, sweep_parts, table_parts

__all__ = ["TOPICS", "Topic"]


class Topic(NamedTuple):
    """What a kind of finding is called, and what shows it: the parts, without those for which it holds nothing."""

    name: str
    parts: Callable[[Any, Pictures], list[Part]]


TOPICS: dict[type[Finding], Topic] = {
    ExperimentFound: Topic("Experiment", experiment_parts),
    SweepFound: Topic("Steering strength", sweep_parts),
    AnswersFound: Topic("Answers", answers_parts),
    TableFound: Topic("Table", table_parts),
    ConceptsFound: Topic("Concepts", concepts_parts),
    ChoiceFound: Topic("Number of concepts", choice_parts),
    ShiftFound: Topic("Shift", shift_parts),
    DriftFound: Topic("Drift over training", drift_parts),
}
"""In the order of the page: what a steering reaches and costs comes first."""
