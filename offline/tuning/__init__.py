"""From candidates to an operating point: everything is tried on dev through one server, and the best reported on test.

Tuning, read_tuning   the configuration
tune                  all of it
Exam, Asking, Server  asking a server of our own, with every answer kept
judged, Judge         what a steering did to answers
tried, Outcome        one steering: dev → operating point → test, beside its controls
"""

from __future__ import annotations

from .ask import Asking, Exam
from .config import Tuning, read_tuning
from .goals import Judge, judged
from .run import tune
from .server import Server
from .trial import Outcome, tried

__all__ = ["Asking", "Exam", "Judge", "Outcome", "Server", "Tuning", "judged", "read_tuning", "tried", "tune"]
