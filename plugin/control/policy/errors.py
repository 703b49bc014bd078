"""What is wrong with the file of a policy."""

from __future__ import annotations

from trimtab.vectors.document import DocumentError

__all__ = ["PolicyError"]


class PolicyError(DocumentError):
    """A policy that cannot be used, so that nothing of it is."""
