"""`trimtab-serve doctor`: what trimtab can do with a model, before it is served, and a proof of it on request.

look     without an engine: the decoder layers that vLLM builds, their number and size, the chat template
trial    with one: an addition after three layers, beside transformers with the same vector added
verdict  what the figures of a trial say
command  the command line, and the words
"""

from __future__ import annotations

from .command import main

__all__ = ["main"]
