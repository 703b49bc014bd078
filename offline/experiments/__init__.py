"""What an experiment on steering says: from a server's exposure log and an outcomes file to effects and a verdict.

outcomes, units, metrics   files → one row per unit, in the arm to which it was assigned
design                     arms, weights and metrics, by the plan
effect, sequence           an arm against the control: looked at once, and looked at as often as one likes
srm, hints, served         whether units follow the weights, and what else may bias
dose                       the trend over strengths
verdict                    ship, stop or undecided, and why
analysis                   all of it
ratios                     whether units follow the weights, from the log alone
power                      how many units an experiment needs
"""

from __future__ import annotations

from .analysis import analysed, earlier
from .design import Design, designed
from .outcomes import Outcomes, read_outcomes
from .power import Power, smallest_effect, units_needed
from .ratios import Checked, checked, textfile

__all__ = [
    "Checked",
    "Design",
    "Outcomes",
    "Power",
    "analysed",
    "checked",
    "designed",
    "earlier",
    "read_outcomes",
    "smallest_effect",
    "textfile",
    "units_needed",
]
