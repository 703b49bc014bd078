"""What profile.json says: pydantic models that refuse every unknown field and every number out of range."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictStr,
    model_validator,
)

from .decode import Natural, Real
from .errors import AlphaError
from .identity import ModelIdentity

MAX_ALPHA = 1e3
_SMALLEST_ALPHA = 2.0**-126  # the smallest normal float32
# Lengths and distances: D entries of MAX_ENTRY have at most this, and its square is far inside float32.
MAX_LENGTH = 1e10
MIN_HIDDEN = 1e-6
TENSOR_FILE = "profile.safetensors"
RESERVED_NAMES = frozenset({"none"})

Kind = Literal["coarse", "fine"]
Positions = Literal["answer", "prompt", "all", "image", "text"]


def check_name(name: str) -> str:
    """`name`, when it is a profile's name: a word that is safe in a path, a header and a metric's label alike.

    Raises:
        ValueError: says what is allowed.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise ValueError(
            f"{name[:80]!r} is no profile name; allowed are 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved: it asks for no steering; choose another profile name")
    return name


def _canonical_keys(value: object) -> object:
    # JSON keys are text. "1" and "01" would both become layer 1, and the last one would win unseen.
    if isinstance(value, Mapping) and any(isinstance(key, str) and str(_as_int(key)) != key for key in value):
        raise ValueError("keys must be layer indices written without signs, spaces or leading zeros")
    return value


def _as_int(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


Name = Annotated[StrictStr, AfterValidator(check_name)]
Digest = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
PerLayer = BeforeValidator(_canonical_keys)
Length = Annotated[Real, Field(ge=0, le=MAX_LENGTH)]
Share = Annotated[Real, Field(ge=0, le=1)]
Limits = Annotated[dict[int, Annotated[tuple[Length | None, ...], Field(min_length=1)]], PerLayer]
Shares = Annotated[dict[int, Annotated[tuple[Share, ...], Field(min_length=1)]], PerLayer]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlphaRange(_Frozen):
    """The strengths that may be asked for: min ≤ alpha ≤ max, and `default` where a request names none.

    All are finite and at most 1000 in size. A negative `min` lets a request steer the other way.
    """

    default: Annotated[Real, Field(ge=-MAX_ALPHA, le=MAX_ALPHA)] = 1.0
    min: Annotated[Real, Field(ge=-MAX_ALPHA, le=MAX_ALPHA)] = 0.0
    max: Annotated[Real, Field(ge=-MAX_ALPHA, le=MAX_ALPHA)] = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> AlphaRange:
        if not self.min <= self.default <= self.max:
            raise ValueError(f"min {self.min:g} ≤ default {self.default:g} ≤ max {self.max:g} does not hold")
        return self

    @property
    def largest(self) -> float:
        """The largest |alpha| that is allowed."""
        return max(abs(self.min), abs(self.max))

    def check(self, value: object, *, param: str = "steering.alpha") -> float:
        """`value` as a float, when it is a number within the range.

        Raises:
            AlphaError: text, a bool, NaN, an infinity, a number outside [min, max], or one that is not 0 and would be
                applied as 0, or without its precision, in float32.
        """
        allowed = f"a number from {_exact(self.min)} to {_exact(self.max)}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise AlphaError(f"alpha must be {allowed}, not {type(value).__name__}", param=param)
        try:
            alpha = float(value)
        except OverflowError:  # an integer of hundreds of digits
            alpha = math.inf
        if not self.min <= alpha <= self.max:  # False for NaN too
            raise AlphaError(f"alpha is {_exact(alpha)}; allowed is {allowed}", param=param)
        if 0 < abs(alpha) < _SMALLEST_ALPHA:
            raise AlphaError(
                f"alpha is {_exact(alpha)}, which is nothing in float32, where it is applied; allowed is {allowed}: 0, "
                f"or at least {_SMALLEST_ALPHA:.3g} in size",
                param=param,
            )
        return alpha


def _exact(number: float) -> str:
    """The shortest text that is this number and no other; 2.0 is written 2."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


class Gate(_Frozen):
    """Where the rows of a fine profile are added.

    scope: "token" decides at every steered position; "sequence" decides at the last prompt position for the answer.
    metric, max_distance: an activation farther than `max_distance` (inclusive) from its nearest centroid is left
    alone; None sets no limit. Cosine distance is 1 - cos, in [0, 2]. The *nearest* centroid is Euclidean always.
    limits: by layer, one distance per concept that takes the place of `max_distance` there; None leaves it in place
    (format version 2).
    """

    scope: Literal["token", "sequence"] = "token"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    max_distance: Length | None = None
    limits: Limits | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Gate:
        distances = [self.max_distance, *(limit for limits in (self.limits or {}).values() for limit in limits)]
        largest = max((distance for distance in distances if distance is not None), default=0.0)
        if self.metric == "cosine" and largest > 2:
            raise ValueError(f"{largest:g} is no cosine distance; allowed is 0 to 2")
        return self


class Norms(_Frozen):
    """Lengths at one layer, from which the relative dose α‖v‖/‖h‖ follows.

    vector: ‖v‖, of a fine profile the longest row's. hidden: a typical ‖h‖ there, None where nobody measured it.
    """

    vector: Length
    hidden: Annotated[Real, Field(ge=MIN_HIDDEN, le=MAX_LENGTH)] | None = None

    def dose(self, alpha: float) -> float | None:
        """|alpha| ‖v‖ / ‖h‖, or None where ‖h‖ is not known."""
        return None if self.hidden is None else abs(alpha) * self.vector / self.hidden


class Provenance(_Frozen):
    """Where an artefact comes from. Nothing here changes what is served.

    dataset_digest: sha256 of the data. rule: which states stand for what (docs/method.md §1). method: how the vectors
    were made. model_id: the model's name on the Hub. source: the file or tool of an import. samples: states by label.
    versions: of the libraries. evaluation: figures by name, nested as the evaluation likes.

    Fields of format version 2: chat_template, the sha256 of the template that the prompts were written with, see
    `template_digest`. prompt: what was asked, with "{question}" for the sample's question; None where it was the
    question alone. labels: what labelled a state, "truth" or a column of the samples; None for the model's own answer.
    """

    dataset_digest: StrictStr | None = None
    rule: StrictStr | None = None
    method: StrictStr | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    model_id: StrictStr | None = None
    source: StrictStr | None = None
    samples: dict[StrictStr, Natural] = Field(default_factory=dict)
    versions: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    evaluation: dict[StrictStr, JsonValue] = Field(default_factory=dict)
    chat_template: Digest | None = None
    prompt: StrictStr | None = None
    labels: StrictStr | None = None

    @property
    def fields_of_version_2(self) -> tuple[str, ...]:
        """Those of them that are used."""
        return tuple(name for name in ("chat_template", "prompt", "labels") if getattr(self, name) is not None)


def template_digest(template: str, arguments: Mapping[str, JsonValue] | None = None) -> str:
    """sha256 (hex) of a chat template's text; where it has arguments, of a NUL and their sorted JSON after it."""
    extra = "\0" + json.dumps(dict(arguments), sort_keys=True) if arguments else ""
    return hashlib.sha256((template + extra).encode()).hexdigest()


class ProfileManifest(_Frozen):
    """profile.json. `sha256` is filled when a profile is saved and demanded when it is loaded.

    Fields of format version 2, all optional: `gate.limits`, those of `Provenance`, and
    shares: by layer, the share of the dictionary's own states, each counted for the positions that it stands for, that
    each concept is the nearest to; sums to 1 at most.
    touched: by layer, the share of the positions of answers that the gate is expected to steer; None where that was not
    measured.
    unmeant: by layer, that share of the positions that the profile is not meant for.
    expected: by layer, the share of its gate's decisions that each concept is expected to get, a concept whose vector
    is zero included; what they lack to 1 is too far from its concept. None where that was not measured.
    ported_from: the models that the profile was made for before it was ported to `base_model`, the first one first.
    """

    format_version: Literal[1, 2] = 1
    name: Name
    description: StrictStr = ""
    base_model: ModelIdentity
    kind: Kind
    layers: Annotated[tuple[Natural, ...], Field(min_length=1)]
    positions: Positions = "answer"
    gate: Gate | None = None
    alpha: AlphaRange = AlphaRange()
    norms: Annotated[dict[int, Norms], PerLayer]
    provenance: Provenance = Provenance()
    shares: Shares | None = None
    touched: Annotated[dict[int, Share], PerLayer] | None = None
    unmeant: Annotated[dict[int, Share], PerLayer] | None = None
    expected: Shares | None = None
    ported_from: Annotated[tuple[ModelIdentity, ...], Field(min_length=1)] | None = None
    sha256: dict[Literal["profile.safetensors"], Digest] = Field(default_factory=dict)

    @property
    def fields_of_version_2(self) -> tuple[str, ...]:
        """Those of them that are used."""
        values = {
            "gate.limits": self.gate.limits if self.gate else None,
            **{f"provenance.{name}": name for name in self.provenance.fields_of_version_2},
            "shares": self.shares,
            "touched": self.touched,
            "unmeant": self.unmeant,
            "expected": self.expected,
            "ported_from": self.ported_from,
        }
        return tuple(name for name, value in values.items() if value is not None)

    @model_validator(mode="after")
    def _coherent(self) -> ProfileManifest:
        if self.format_version == 1 and self.fields_of_version_2:
            raise ValueError(f"{self.fields_of_version_2[0]} is a field of format version 2; this is version 1")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers {list(self.layers)[:20]} must be sorted and unique")
        depth = self.base_model.num_layers
        if self.layers[-1] >= depth:
            raise ValueError(f"layer {self.layers[-1]} does not exist; the base model has layers 0 to {depth - 1}")
        if self.norms.keys() != set(self.layers):
            raise ValueError(f"norms are given for layers {sorted(self.norms)[:20]}; expected {list(self.layers)[:20]}")
        if self.kind == "coarse" and self.gate is not None:
            raise ValueError("a coarse profile has no gate; only the rows of a fine profile are gated")
        if self.kind == "fine" and self.gate is None:
            raise ValueError("a fine profile needs a gate; {} is the plain one")
        if self.gate is not None and self.gate.scope == "sequence" and self.positions != "answer":
            raise ValueError(f'gate.scope "sequence" works with positions "answer" only, not with "{self.positions}"')
        self._check_by_layer()
        return self

    def _check_by_layer(self) -> None:
        by_layer: dict[str, Mapping[int, object]] = {
            "gate.limits": (self.gate and self.gate.limits) or {},
            "shares": self.shares or {},
            "touched": self.touched or {},
            "unmeant": self.unmeant or {},
            "expected": self.expected or {},
        }
        for name, values in by_layer.items():
            if values and self.kind == "coarse":
                raise ValueError(f"{name} speaks of concepts, which a coarse profile does not have")
            if unknown := sorted(values.keys() - set(self.layers)):
                raise ValueError(f"{name} is given for layer {unknown[0]}; the layers are {list(self.layers)[:20]}")
        for name, found in {"shares": self.shares, "expected": self.expected}.items():
            for layer, shares in (found or {}).items():
                if (total := math.fsum(shares)) > 1 + 1e-6:
                    raise ValueError(f"{name} of layer {layer} sum to {total:g}; at most 1 is allowed")


def adds_nothing(manifest: ProfileManifest) -> bool:
    """Whether all vectors are zero, so that the profile only watches which concepts are the nearest."""
    return all(norms.vector == 0 for norms in manifest.norms.values())
