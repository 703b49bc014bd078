"""States of the residual stream out of a serving engine.

capture, capture_args, take   what a caller uses: arm an engine, ask it, take the states of finished requests
Captured, write_states        what comes out, and the folder that `trimtab.offline` reads
"""

from .calls import Captured, capture, capture_args, take
from .folder import write_states

__all__ = ["Captured", "capture", "capture_args", "take", "write_states"]
