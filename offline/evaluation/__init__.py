"""What a served model answers to the data sets of the field, steered and unsteered.

Endpoint, ask_all   a server, and asking it many questions
AnswersFolder       the folder that keeps the answers
Benchmark           a data set's questions and how its answers are judged (`.datasets` holds them)
Run, read_run       the answers of one run
compared            a steered run beside an unsteered one
"""

from __future__ import annotations

from .answers import AnswersFolder
from .benchmark import Benchmark
from .endpoint import Endpoint, ask_all
from .results import Run, compared, read_run

__all__ = ["AnswersFolder", "Benchmark", "Endpoint", "Run", "ask_all", "compared", "read_run"]
