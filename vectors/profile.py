"""A profile: a named bundle of steering vectors for one model, as it is saved, served and spoken of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from .arrays import MAX_ENTRY, Float32
from .decode import sentence
from .errors import FormatError, IntegrityError
from .identity import ModelIdentity
from .layers import CoarseLayer, FineLayer, Layer
from .manifest import AlphaRange, Gate, Norms, Positions, ProfileManifest, Provenance
from .vector import SteeringVector

__all__ = [
    "AlphaRange",
    "CoarseLayer",
    "FineLayer",
    "Gate",
    "Layer",
    "Norms",
    "Profile",
    "ProfileManifest",
    "Provenance",
    "named_tensors",
]


@dataclass(frozen=True, eq=False)
class Profile:
    """A manifest and the tensors that it speaks of, checked against each other.

    Build one with `Profile.coarse` or `Profile.fine`, which fill in what can be computed.

    Raises:
        FormatError: the tensors are not those that the manifest implies.
        IntegrityError: a number beyond what can be served, or a norm in the manifest that the tensors do not have.
    """

    manifest: ProfileManifest
    tensors: Mapping[int, Layer]

    def __post_init__(self) -> None:
        tensors = {layer: self.tensors[layer] for layer in sorted(self.tensors)}
        object.__setattr__(self, "tensors", MappingProxyType(tensors))
        if tuple(tensors) != self.manifest.layers:
            raise FormatError(f"{self.name}: has tensors for layers {list(tensors)}; its manifest says otherwise")
        for layer, tensor in tensors.items():
            _check_layer(self.manifest, layer, tensor)

    @classmethod
    def coarse(
        cls,
        name: str,
        vectors: Collection[SteeringVector],
        *,
        model: ModelIdentity,
        description: str = "",
        positions: Positions = "answer",
        alpha: AlphaRange | None = None,
        hidden_norms: Mapping[int, float] | None = None,
        provenance: Provenance | None = None,
        ported_from: Sequence[ModelIdentity] | None = None,
    ) -> Profile:
        """One vector a layer, each added at every steered position: h ← h + alpha · v (docs/method.md §4).

        hidden_norms: a typical ‖h‖ by layer, where it was measured. ported_from: see `ProfileManifest`.

        Raises:
            FormatError: a bad name, no vectors, two vectors for a layer, a layer or size that `model` does not have.
        """
        tensors = {vector.layer: CoarseLayer(vector.values) for vector in vectors}
        if len(tensors) != len(vectors):
            raise FormatError(f"{name[:80]}: has two vectors for one layer; add them up first")
        return cls._build(
            tensors,
            hidden_norms,
            name=name,
            base_model=model,
            kind="coarse",
            description=description,
            positions=positions,
            alpha=alpha or AlphaRange(),
            provenance=provenance or Provenance(),
            ported_from=ported_from,
        )

    @classmethod
    def fine(
        cls,
        name: str,
        layers: Mapping[int, tuple[npt.ArrayLike, npt.ArrayLike]],
        *,
        model: ModelIdentity,
        description: str = "",
        positions: Positions = "answer",
        gate: Gate | None = None,
        alpha: AlphaRange | None = None,
        hidden_norms: Mapping[int, float] | None = None,
        provenance: Provenance | None = None,
        shares: Mapping[int, Sequence[float]] | None = None,
        touched: Mapping[int, float] | None = None,
        unmeant: Mapping[int, float] | None = None,
        expected: Mapping[int, Sequence[float]] | None = None,
        ported_from: Sequence[ModelIdentity] | None = None,
    ) -> Profile:
        """Rows added where their concept is the nearest (docs/method.md §4). layers: {l: (centroids, vectors)}, [K, D].

        shares, touched, unmeant, expected, ported_from: see `ProfileManifest`; any of them makes it format version 2.

        Raises:
            FormatError: a bad name, no layers, a layer or size that `model` does not have.
            VectorError: arrays that do not fit together or are not finite.
        """
        tensors = {
            layer: FineLayer(np.asarray(centroids), np.asarray(vectors))
            for layer, (centroids, vectors) in layers.items()
        }
        return cls._build(
            tensors,
            hidden_norms,
            name=name,
            base_model=model,
            kind="fine",
            description=description,
            positions=positions,
            gate=gate or Gate(),
            alpha=alpha or AlphaRange(),
            provenance=provenance or Provenance(),
            shares=shares,
            touched=touched,
            unmeant=unmeant,
            expected=expected,
            ported_from=ported_from,
        )

    @classmethod
    def _build(cls, tensors: Mapping[int, Layer], hidden_norms: Mapping[int, float] | None, **fields: Any) -> Profile:
        hidden = {int(layer): float(norm) for layer, norm in (hidden_norms or {}).items()}
        try:
            norms = {layer: Norms(vector=tensors[layer].norm, hidden=hidden.get(layer)) for layer in sorted(tensors)}
            manifest = ProfileManifest(format_version=2, layers=tuple(norms), norms=norms, **fields)
            if not manifest.fields_of_version_2:
                manifest = manifest.model_copy(update={"format_version": 1})
            return cls(manifest, tensors)
        except ValidationError as error:
            raise FormatError(f"{str(fields['name'])[:80]}: {sentence(error)}") from error

    @property
    def name(self) -> str:
        """The registered name."""
        return self.manifest.name

    @property
    def layers(self) -> tuple[int, ...]:
        """The steered decoder layers, ascending."""
        return self.manifest.layers

    @property
    def last_layer(self) -> int:
        """The highest steered layer."""
        return self.manifest.layers[-1]

    @property
    def largest_k(self) -> int:
        """The most rows that one of its layers takes; 1 for a coarse profile."""
        return max(tensor.rows for tensor in self.tensors.values())

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over what decides the served bits: tensors, kind, positions, gate with its limits.

        A new description, alpha range or evaluation leaves it as it is, so caches that are keyed by it stay valid.
        """
        arrays = named_tensors(self)
        gate = self.manifest.gate.model_dump(mode="json") if self.manifest.gate else None
        if gate is not None and gate["limits"] is None:
            del gate["limits"]  # so that profiles of version 1 keep the digest that they had
        head = {
            "kind": self.manifest.kind,
            "positions": self.manifest.positions,
            "gate": gate,
            "tensors": [[name, list(array.shape)] for name, array in arrays.items()],
        }
        digest = hashlib.sha256(b"trimtab profile 1\n" + json.dumps(head, sort_keys=True).encode() + b"\n")
        for array in arrays.values():
            digest.update(array.data)
        return digest.hexdigest()

    @cached_property
    def content_digest(self) -> str:
        """sha256 (hex) over all that is known of the profile: the tensors and every field of the manifest.

        Two processes that read the same folder agree on it exactly when neither saw a value that the other did not.
        """
        manifest = self.manifest.model_dump(mode="json", exclude={"sha256"})
        content = json.dumps([self.digest, manifest], sort_keys=True)
        return hashlib.sha256(b"trimtab profile content 1\n" + content.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Profile({self.name!r}, {self.manifest.kind}, layers={list(self.layers)}, digest={self.digest[:12]!r})"


def named_tensors(profile: Profile) -> dict[str, Float32]:
    """The arrays of a profile by their names on disk, layers ascending."""
    return {
        f"layers.{layer}.{part}": array
        for layer, tensor in profile.tensors.items()
        for part, array in tensor.named.items()
    }


def _check_layer(manifest: ProfileManifest, layer: int, tensor: Layer) -> None:
    where = f"{manifest.name}: layer {layer}"
    if isinstance(tensor, CoarseLayer) != (manifest.kind == "coarse"):
        raise FormatError(f"{where}: holds a {type(tensor).__name__} in a {manifest.kind} profile")
    size = manifest.base_model.hidden_size
    if tensor.hidden_size != size:
        raise FormatError(f"{where}: has vectors of size {tensor.hidden_size}; the base model's hidden size is {size}")
    for part, array in tensor.named.items():
        if (largest := float(np.abs(array).max())) > MAX_ENTRY:
            raise IntegrityError(f"{where}: {part} holds {largest:g}; entries up to {MAX_ENTRY:g} can be served")
    by_concept = {
        "shares": manifest.shares,
        "expected shares": manifest.expected,
        "gate.limits": manifest.gate and manifest.gate.limits,
    }
    for field, values in by_concept.items():
        if (given := (values or {}).get(layer)) is not None and len(given) != tensor.rows:
            raise FormatError(f"{where}: has {len(given)} {field} for {tensor.rows} concepts; give one for each")
    declared, actual = manifest.norms[layer].vector, tensor.norm
    if abs(declared - actual) > 1e-4 * max(declared, actual):
        raise IntegrityError(
            f"{where}: the manifest gives the norm {declared:g}, the tensors have {actual:g}; doses would be wrong"
        )
