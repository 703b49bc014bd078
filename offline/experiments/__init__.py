"""What an experiment on steering says: from a server's exposure log and an outcomes file to effects and a verdict.

outcomes, units, metrics   files → one row per unit, in the arm to which it was assigned
design                     arms, weights and metrics, by the plan
effect, sequence           an arm against the control: looked at once, and looked at as often as one likes
srm, hints, served         whether units follow the weights, and what else may bias
dose                       the trend over strengths
verdict                    ship, stop or undecided, and why
analysis                   all of it
power                      how many units an experiment needs
"""

from __future__ import annotations

from .analysis import analysed, earlier
from .design import Design, designed
from .outcomes import Outcomes, read_outcomes
from .power import Power, smallest_effect, units_needed

__all__ = [
    "Design",
    "Outcomes",
    "Power",
    "analysed",
    "designed",
    "earlier",
    "read_outcomes",
    "smallest_effect",
    "units_needed",
]
