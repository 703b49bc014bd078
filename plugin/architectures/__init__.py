"""Models that this vLLM lacks and trimtab brings: Idefics2."""

from .brought import BROUGHT, register

__all__ = ["BROUGHT", "register"]
