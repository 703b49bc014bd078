"""The lines of an exposure log: JSON, one event per line.

An *exposure* is written when a request of a unit is admitted, and a *closing* when its answer has ended. They have the
`exposure_id` in common, which the answer carries too. No line holds a text of a request, or a unit by its own name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import FormatError

__all__ = ["LOG_FILE", "Closing", "Exposure", "read_lines"]

LOG_FILE = "exposures.jsonl"
"""The newest file of a log in a folder; older ones end in .1, .2, …"""

_ID = r"^exp-[0-9a-f]{32}$"
_MOST_BYTES = 1 << 16  # of a line


class _Line(BaseModel):
    # A later version may say more; what this one does not know is left out.
    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp: str
    """ISO 8601, UTC, with milliseconds."""
    exposure_id: Annotated[str, Field(pattern=_ID)]

    def to_line(self) -> str:
        """The line, without the end of it."""
        return json.dumps(self.fields(), ensure_ascii=False, allow_nan=False)

    def fields(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_line(cls, line: str) -> Self:
        """What a line says.

        Raises:
            FormatError: it is none of these lines.
        """
        try:
            return cls.model_validate(json.loads(line))
        except (ValueError, RecursionError, ValidationError) as error:
            raise FormatError(f"a line of the log is no {cls.__name__.lower()}: {line[:80]!r}") from error


class Exposure(_Line):
    """A unit was given something.

    variation, assigned: the arm that the unit is assigned to. served: the arm that it was given, or "none" or "named"
    where its client asked for that itself. forced: its client named the arm, so it is left out of every analysis.
    unit: its pseudonym. unit_source: where the unit stood. profile, alpha, digest: of all that steered, enforced ones
    included; several are joined by ", "; null where nothing did. plan: digest of the plan. request_id: the server's.
    """

    event: Literal["exposure"] = "exposure"
    experiment: str
    seed: str
    variation: str
    unit: str
    unit_source: str
    assigned: str
    served: str
    forced: bool = False
    profile: str | None = None
    alpha: float | str | None = None
    digest: str | None = None
    plan: str
    replica: str
    request_id: str


class Closing(_Line):
    """Its answer has ended.

    finish_reason: "stop", "length", "abort", "error", or another of vLLM's. Tokens are counts, of all choices and
    prompts of the request together. queue_s, first_token_s, per_token_s, e2e_s: seconds waiting, to the first token,
    per further token, and in all; of several, the largest. gate_tokens, gate_active: tokens that a gate looked at, and
    those at which it added something. Null is not known.
    """

    event: Literal["closed"] = "closed"
    finish_reason: str
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    cached_tokens: int | None = None
    queue_s: float | None = None
    first_token_s: float | None = None
    per_token_s: float | None = None
    e2e_s: float | None = None
    gate_tokens: int | None = None
    gate_active: int | None = None


def read_lines(log: Path) -> Iterator[Exposure | Closing]:
    """All lines of a log, from the oldest file on. log: a file, or the folder of a log.

    A last line that was cut short, as a full disk leaves it, and events of another name are left out.

    Raises:
        FormatError: it cannot be read, or a line is none of a log; names the file and the line.
    """
    for path in _files(log):
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n") and line.strip():
                        yield from _read_line(line, f"{path.name}, line {number}")
        except OSError as error:
            raise FormatError(f"{path.name}: cannot be read ({error.strerror})") from error


def _read_line(line: bytes, where: str) -> Iterator[Exposure | Closing]:
    try:
        if len(line) > _MOST_BYTES:
            raise ValueError
        fields: dict[str, Any] = json.loads(line)
        if fields["event"] == "exposure":
            yield Exposure.model_validate(fields)
        elif fields["event"] == "closed":
            yield Closing.model_validate(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{where}: is no line of an exposure log") from error


def _files(log: Path) -> list[Path]:
    if not log.is_dir():
        return [log]
    named = re.compile(r".+\.jsonl(?:\.(\d+))?")
    found = [(int(match[1] or 0), path) for path in log.iterdir() if (match := named.fullmatch(path.name))]
    if not found:
        raise FormatError(f"{log.name}: holds no file whose name ends in .jsonl")
    # The highest number is the oldest.
    return [path for _, path in sorted(found, key=lambda one: (-one[0], one[1].name))]
