"""data.json, which says what a folder of samples is: written by `trimtab data`, read wherever its samples are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from ..errors import DataError

__all__ = ["FILE", "PARTS", "DataFolder", "read_data_folder", "write_data_folder"]

FILE = "data.json"
PARTS = ("train", "dev", "test")
_KIND: Literal["trimtab-data"] = "trimtab-data"

Share = Annotated[float, Field(ge=0, le=1)]


class DataFolder(BaseModel):
    """data.json of a folder of samples.

    source: what it was made of, as it was given. format: how that was read. digest: "sha256:<hex>" of the source's
    files of text. prompt: what each sample is asked; "{question}" stands for its question. seed, shares: of the split
    into train, dev and test. drawn: how many samples were asked for, None for all. parts: "sha256:<hex>" of each part's
    file, by name. samples: how many each part holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["trimtab-data"] = _KIND
    format_version: Literal[1] = 1
    source: StrictStr
    format: StrictStr
    digest: StrictStr
    prompt: StrictStr
    seed: int = 0
    shares: tuple[Share, Share, Share]
    drawn: int | None = None
    contrast: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    parts: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    samples: dict[StrictStr, int] = Field(default_factory=dict)


def read_data_folder(folder: Path) -> DataFolder | None:
    """A folder's data.json; None where there is none, or one of somebody else's.

    Raises:
        DataError: it cannot be read, or is not in our form.
    """
    path = folder / FILE
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); make the folder again, or give --prompt") from error
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        return None
    try:
        return DataFolder.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {where}: {first['msg']}; make the folder again with `trimtab data`, or give --prompt"
        ) from error


def write_data_folder(folder: Path, made: DataFolder) -> None:
    """Write data.json."""
    (folder / FILE).write_text(made.model_dump_json(indent=1, exclude_none=True) + "\n", "utf-8")
