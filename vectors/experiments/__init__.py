"""Experiments on steering: what a plan says and what a server logs, for the server and for the analysis.

plan        the operator's file: layers, experiments, arms; read whole or refused whole
changes     what may change in a plan that is running
phases      what ran under each seed, so that none comes again unnoticed
exposures   the lines of the log: who was given what, and how it ended
unit        the pseudonym that stands for a unit in the log
"""

from .changes import changes
from .exposures import Closing, Exposure, read_lines
from .phases import Phases
from .plan import Arm, Experiment, Guardrail, Layer, Metrics, Plan, PlanError, Primary, read_plan
from .unit import UnitKey

__all__ = [
    "Arm",
    "Closing",
    "Experiment",
    "Exposure",
    "Guardrail",
    "Layer",
    "Metrics",
    "Phases",
    "Plan",
    "PlanError",
    "Primary",
    "UnitKey",
    "changes",
    "read_lines",
    "read_plan",
]
