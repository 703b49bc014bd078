"""What is wrong with the file of a policy."""

from __future__ import annotations

from trimtab.vectors.errors import TrimtabError

__all__ = ["PolicyError"]

_SHOWN = 5


class PolicyError(TrimtabError):
    """A policy that cannot be used, so that nothing of it is.

    faults: what is wrong, each with its line, 1-based, or None where no line is at fault; at least one.
    """

    def __init__(self, reason: str, line: int | None = None, *more: tuple[str, int | None]) -> None:
        self.faults = ((reason, line), *more)
        said = [text if at is None else f"line {at}: {text}" for text, at in self.faults]
        rest = [f"and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
        super().__init__("; ".join([*said[:_SHOWN], *rest]))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (*self.faults[0], *self.faults[1:]))
