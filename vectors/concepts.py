"""A concept dictionary: the directions that a layer's activations gather around, each with the word it stands for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from safetensors.numpy import save

from .arrays import MAX_ENTRY, Float32, Float64, Int64, finite_float32, frozen, frozen_float32
from .decode import MAX_JSON_BYTES, MAX_TENSOR_BYTES, Natural, TensorSpec, dump_manifest, parse_manifest, read_tensors
from .errors import FormatError, IntegrityError, VectorError
from .files import check_digest, read_bytes, write_folder
from .identity import ModelIdentity
from .manifest import Digest, Provenance
from .nearest import nearest

MANIFEST_FILE = "concepts.json"
TENSOR_FILE = "concepts.safetensors"

Method = Literal["kmeans", "mini-batch-kmeans", "class-means", "semi-nmf", "pca", "simple"]


class DictionaryManifest(BaseModel):
    """concepts.json. Version 2 may hold the fields of `Provenance` that are of version 2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1, 2] = 1
    layer: Natural
    method: Method
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    base_model: ModelIdentity
    provenance: Provenance
    sha256: dict[Literal["concepts.safetensors"], Digest]


@dataclass(frozen=True, eq=False)
class ConceptDictionary:
    """K concepts after decoder block `layer`, by docs/method.md §2.

    centroids: float32 [K, D], read-only. labels: for each concept the answer or word that most of its states stand for.
    counts: int64 [K], states by concept. purity: float64 [K] in [0, 1], the share of a concept's states with its label.

    Raises:
        VectorError: arrays that do not fit together, to `model` or to their meaning.
    """

    layer: int
    centroids: Float32
    labels: tuple[str, ...]
    counts: Int64
    purity: Float64
    method: Method
    model: ModelIdentity
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        object.__setattr__(self, "centroids", frozen_float32(self.centroids, 2, "centroids"))
        object.__setattr__(self, "labels", tuple(self.labels))
        counts, purity = np.asarray(self.counts), np.asarray(self.purity, dtype=np.float64)
        k, size = self.centroids.shape
        if (largest := float(np.abs(self.centroids).max())) > MAX_ENTRY:
            raise VectorError(f"centroids hold {largest:g}; entries up to {MAX_ENTRY:g} can be served")
        if counts.dtype.kind not in "iu" or counts.shape != (k,) or (counts < 0).any():
            raise VectorError(f"counts must be {k} integers of 0 or more, one for each centroid")
        if purity.shape != (k,) or not ((purity >= 0) & (purity <= 1)).all():
            raise VectorError(f"purity must be {k} numbers from 0 to 1, one for each centroid")
        if len(self.labels) != k or not all(isinstance(label, str) for label in self.labels):
            raise VectorError(f"labels must be {k} words, one for each centroid")
        if size != self.model.hidden_size or not 0 <= self.layer < self.model.num_layers:
            raise VectorError(
                f"centroids of size {size} at layer {self.layer} do not fit a model of hidden size "
                f"{self.model.hidden_size} with layers 0 to {self.model.num_layers - 1}"
            )
        object.__setattr__(self, "counts", frozen(counts.astype("<i8")))
        object.__setattr__(self, "purity", frozen(purity.astype("<f8")))

    def nearest(self, h: npt.ArrayLike) -> Int64:
        """For each row of h [N, D] the index of its nearest concept, int64 [N].

        The lowest index wins a tie. It is what serving computes, see `trimtab.vectors.nearest`.

        Raises:
            VectorError: h is not a finite [N, D].
        """
        rows = finite_float32(h, 2, "h")
        if rows.shape[1] != self.centroids.shape[1]:
            raise VectorError(f"h has rows of size {rows.shape[1]}; the centroids have {self.centroids.shape[1]}")
        return nearest(rows, self.centroids)

    def save(self, folder: Path, *, overwrite: bool = False) -> Path:
        """Writes concepts.json and concepts.safetensors to `folder` in one step and returns the folder.

        Raises:
            FormatError: the folder exists (without `overwrite`, or when it holds no dictionary).
            ProfileError: the disk refused.
        """
        folder = Path(folder)
        tensors = save({"centroids": self.centroids, "counts": self.counts, "purity": self.purity})
        manifest = DictionaryManifest(
            format_version=2 if self.provenance.fields_of_version_2 else 1,
            layer=self.layer,
            method=self.method,
            labels=self.labels,
            base_model=self.model,
            provenance=self.provenance,
            sha256={"concepts.safetensors": hashlib.sha256(tensors).hexdigest()},
        )
        contents = {MANIFEST_FILE: dump_manifest(manifest, f"{folder.name}/{MANIFEST_FILE}"), TENSOR_FILE: tensors}
        write_folder(folder, contents, overwrite=overwrite, marker=MANIFEST_FILE)
        return folder

    @classmethod
    def load(cls, folder: Path) -> ConceptDictionary:
        """The dictionary in `folder`, after the checks that a profile gets.

        Raises:
            FormatError: something is missing, cut short, unknown, of the wrong form or too large.
            IntegrityError: the tensors are not those that were saved, or make no dictionary.
        """
        folder = Path(folder)
        where = f"{folder.name}/{MANIFEST_FILE}"
        manifest = parse_manifest(
            DictionaryManifest, read_bytes(folder, MANIFEST_FILE, MAX_JSON_BYTES), where, versions=(1, 2)
        )
        if TENSOR_FILE not in manifest.sha256:
            raise FormatError(f"{where}: gives no sha256 for {TENSOR_FILE}; save the dictionary with trimtab")
        data = read_bytes(folder, TENSOR_FILE, MAX_TENSOR_BYTES)
        where = f"{folder.name}/{TENSOR_FILE}"
        check_digest(data, manifest.sha256["concepts.safetensors"], where)
        k, size = len(manifest.labels), manifest.base_model.hidden_size
        specs = {
            "centroids": TensorSpec("F32", (k, size)),
            "counts": TensorSpec("I64", (k,)),
            "purity": TensorSpec("F64", (k,)),
        }
        arrays = read_tensors(data, specs, where)
        try:
            return cls(
                layer=manifest.layer,
                centroids=cast("Float32", arrays["centroids"]),
                labels=manifest.labels,
                counts=cast("Int64", arrays["counts"]),
                purity=cast("Float64", arrays["purity"]),
                method=manifest.method,
                model=manifest.base_model,
                provenance=manifest.provenance,
            )
        except VectorError as error:
            raise IntegrityError(f"{where}: {error}") from error
