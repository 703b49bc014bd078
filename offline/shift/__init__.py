"""What a fine-tune did to the concepts of a model (docs/method.md §3).

shifts_of, recovered   how concepts moved, and how near that brings them to the fine-tune's own
match_concepts         which concept of one dictionary is which of another
study_shift            the whole comparison
profile_of_shift       a steering profile of it
ShiftRun               a folder in which models are compared
"""

from __future__ import annotations

from .deltas import recovered, shifts_of
from .matching import match_concepts
from .profile import profile_of_shift
from .run import ShiftRun
from .study import study_shift

__all__ = ["ShiftRun", "match_concepts", "profile_of_shift", "recovered", "shifts_of", "study_shift"]
