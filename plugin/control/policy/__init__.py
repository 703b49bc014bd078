"""The access policy: an operator's file that says who may be steered how, and what everybody gets.

model      what it says (pydantic)
coherence  what its parts say of each other, and of the profiles that are served
load       all of that in one: a policy, or an error that names each line at fault
decide     what one request gets
limits, pushback, patterns   the bounds on it, how far a request may undo what is enforced, patterns of names
"""

from __future__ import annotations

from .errors import PolicyError
from .load import parse_policy, read_policy
from .model import Policy

__all__ = ["Policy", "PolicyError", "parse_policy", "read_policy"]
