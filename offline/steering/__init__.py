"""From states and dictionaries to steering profiles (docs/method.md §4).

coarse_profile, fine_profile       states and dictionaries → a profile
gated_profile, Gating              one vector at the concepts of some words; how a gate is kept to what it is meant for
pairs_near, pair_profile, select   which concept to steer to which
watching                           a profile that adds nothing, for a server that counts concepts
random_control                     a profile of the same strength and no meaning
"""

from __future__ import annotations

from .choose_pair import pair_profile, pairs_near, select
from .fine import Gating
from .null_control import random_control
from .profiles import coarse_profile, fine_profile, gated_profile

__all__ = [
    "Gating",
    "coarse_profile",
    "fine_profile",
    "gated_profile",
    "pair_profile",
    "pairs_near",
    "random_control",
    "select",
]
