"""Which model an artefact belongs to: its architecture, its shape, and a fingerprint of its weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from .decode import sentence
from .errors import FormatError, ModelMismatchError

_MAX_HEADER = 100_000_000  # safetensors' own limit
_SLICES = 64
_SLICE_BYTES = 4096
_SMALL_BYTES = 1 << 20

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte)\.weight$")
_TOWER = re.compile(r"(?:^|\.)(?:vision\w*|visual|audio\w*|perceiver\w*|connector)\.")

Text = Annotated[str, Field(strict=True, min_length=1, max_length=200, pattern=r"^[ -~]+$")]
Fingerprint = Annotated[str, Field(strict=True, pattern=r"^(sampled|adapted)-sha256:[0-9a-f]{64}$")]


class ModelIdentity(BaseModel):
    """The model that a vector lives in.

    architecture: the first entry of "architectures" in the model's config.json.
    hidden_size, num_layers: of the decoder, D and the number of its blocks.
    fingerprint: see `fingerprint`; None where the weights are not known (vectors imported from other tools).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Text
    hidden_size: Annotated[StrictInt, Field(ge=1, le=1 << 20)]
    num_layers: Annotated[StrictInt, Field(ge=1, le=1 << 16)]
    fingerprint: Fingerprint | None = None

    @classmethod
    def of(cls, folder: Path) -> ModelIdentity:
        """The identity of a model folder in the Hub's layout (config.json beside *.safetensors).

        The sizes are the text decoder's: `text_config` where there is one. Checkpoints on the Hub leave values out of
        it that equal a library's defaults (LLaVA-1.5 does); these are read from the shapes of the weights.

        Raises:
            FormatError: no config.json, no *.safetensors, or sizes that cannot be found.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            architecture = config["architectures"][0]
            text = config.get("text_config") or config
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{folder.name}/config.json: is missing or names no architecture; expected a model folder as "
                "save_pretrained writes it"
            ) from error
        hidden_size = text.get("hidden_size") or text.get("n_embd")
        num_layers = text.get("num_hidden_layers") or text.get("n_layer")
        if hidden_size is None or num_layers is None:
            found = _sizes_of_weights(folder)
            hidden_size, num_layers = hidden_size or found[0], num_layers or found[1]
        try:
            return cls(
                architecture=architecture,
                hidden_size=hidden_size,
                num_layers=num_layers,
                fingerprint=fingerprint(folder),
            )
        except ValidationError as error:
            raise FormatError(f"{folder.name}/config.json: {sentence(error)}") from error

    def agrees(self, other: ModelIdentity) -> bool:
        """Whether one model can be meant by both: nothing differs that both of them state."""
        mine, theirs = self.model_dump(), other.model_dump()
        return all(mine[name] is None or theirs[name] in (None, mine[name]) for name in mine)

    def check(self, other: ModelIdentity) -> None:
        """Passes when an artefact made for this model may be used with `other`.

        Where this identity has no fingerprint, any model of the same architecture and shape will do. Where it has one,
        `other` must have the same: weights that cannot be compared count as different.

        Raises:
            ModelMismatchError: names each property that differs.
        """
        differing = [
            f"{field.replace('_', ' ')} {getattr(self, field)} (this model: {getattr(other, field)})"
            for field in ("architecture", "hidden_size", "num_layers")
            if getattr(self, field) != getattr(other, field)
        ]
        if not differing and self.fingerprint is not None and self.fingerprint != other.fingerprint:
            differing = [f"weights with fingerprint {self.fingerprint} (this model: {other.fingerprint or 'unknown'})"]
        if differing:
            raise ModelMismatchError(
                f"made for another model: {'; '.join(differing)}. Serve the model it was made for, or make it anew"
            )


def fingerprint(folder: Path) -> str:
    """Returns "sampled-sha256:<hex>" over a model's *.safetensors, cheap even for hundreds of gigabytes.

    Of each file, in the order of names: its size, its safetensors header, 64 evenly spaced slices of 4 KiB, and 4 KiB
    from the middle of every tensor on, so that a training step which touches one tensor alone is seen as well. Files of
    up to 1 MiB are read whole. It tells models apart; it is no defence against someone who forges weights.

    Raises:
        FormatError: no *.safetensors in the folder, or one that is not what its name says.
    """
    digest = hashlib.sha256()
    for path in _weight_files(folder):
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            if size <= _SMALL_BYTES:
                digest.update(file.read())
                continue
            header, data_start = _read_header(path)
            digest.update(json.dumps(header, sort_keys=True).encode())
            step = (size - data_start) // _SLICES
            starts = [data_start + index * step for index in range(_SLICES)]
            starts += sorted(
                data_start + sum(entry["data_offsets"]) // 2 for name, entry in header.items() if name != "__metadata__"
            )
            for start in starts:
                digest.update(os.pread(file.fileno(), _SLICE_BYTES, start))
    return f"sampled-sha256:{digest.hexdigest()}"


def _weight_files(folder: Path) -> list[Path]:
    paths = sorted(Path(folder).glob("*.safetensors"), key=lambda path: path.name)
    # Mistral's repositories hold the weights twice: a model keeps its fingerprint when the second set comes along.
    paths = [path for path in paths if not path.name.startswith("consolidated")] or paths
    if not paths:
        raise FormatError(f"{Path(folder).name}: holds no *.safetensors; save the model with safetensors weights")
    return paths


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a weight file and the position where its data begins."""
    where = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MAX_HEADER, size):
                raise FormatError(f"{where}: declares a header of {length:,} bytes; is it a safetensors file?")
            header = json.loads(file.read(length))
            valid = all(
                name == "__metadata__" or (0 <= entry["data_offsets"][0] <= entry["data_offsets"][1] <= size)
                for name, entry in header.items()
            )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{where}: has no readable safetensors header") from error
    if not valid:
        raise FormatError(f"{where}: has a malformed safetensors header")
    return header, 8 + length


def _sizes_of_weights(folder: Path) -> tuple[int, int]:
    """Hidden size and number of blocks of the text decoder, from the names and shapes of its weights."""
    hidden_size = num_layers = 0
    for path in _weight_files(folder):
        for name, entry in _read_header(path)[0].items():
            if name == "__metadata__" or _TOWER.search(name):
                continue
            if _EMBEDDING.search(name):
                hidden_size = int(entry["shape"][1])
            if block := _BLOCK.search(name):
                num_layers = max(num_layers, int(block.group(1)) + 1)
    if not hidden_size or not num_layers:
        raise FormatError(
            f"{Path(folder).name}/config.json: gives no hidden_size or num_hidden_layers and the weights do not show "
            "them; save the model again with save_pretrained"
        )
    return hidden_size, num_layers
