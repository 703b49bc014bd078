"""One self-contained HTML page of a run folder (see `..run` and `..findings`).

page        a run folder → the page        gathered    what is in the folder
header      what was studied, and how      compared, profiles      all steerings, all profiles
sections    a finding → its parts          show_concepts, show_experiment, …    the parts of each kind
parts       what a section is made of      pictures    files of the run → data URLs
svg         elements, scales, axes         charts, arrows, pareto, flow, trial    figures → drawings
"""

from __future__ import annotations

from .page import render, write_report
from .pictures import Pictures

__all__ = ["Pictures", "render", "write_report"]
