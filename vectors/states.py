"""States on disk: what a serving engine's capture and offline's `represent` write, and what offline reads.

    manifest.json            what was asked of which model, the finished shards with their digests, the skipped samples
    rows-00000.safetensors   layers.<l> float32 [n, D]; sample, position, token, label int64 [n]; and where they say
                             more than their absence: background, sample_label int64 [n], weight float64 [n]
    rows-00000.jsonl         one line per sample of the shard: its id, and the answer that was generated

Background states stand beside those that the rule keeps: a sample of the other positions of the same answers, at which
a served profile would act as well. `background` is 0 for a state of the rule, else the number of positions of that
answer that the rule does not keep. `sample_label` is the label of the state's sample, where labels speak of samples.

`weight` is how many of the data's samples like its own a state's sample stands for: 1 where it is absent. Of the labels
in `StatesShard.left_out`, each state of the rule that is there stands for those that are not as well.

A shard covers a fixed run of samples, and the manifest is replaced after each one. Whatever the moment of a kill, what
the manifest names is whole; what it does not name is made again, to the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StrictStr, model_validator
from safetensors.numpy import save

from .decode import Natural, check_text, parse_manifest
from .errors import printable
from .files import read_bytes, write_whole
from .identity import ModelIdentity
from .manifest import Digest, Provenance

MANIFEST_FILE = "manifest.json"
COLUMNS = ("sample", "position", "token", "label")
BACKGROUND = "background"
"""The column that a folder with background states has beside `COLUMNS`."""
SAMPLE_LABEL = "sample_label"
WEIGHT = "weight"
_MAX_BYTES = 1 << 28  # every skipped sample and every label stands in it

Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=1 << 53)]
# Somebody else's picture names may hold anything; they are only shown.
Shown = Annotated[StrictStr, AfterValidator(printable)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_LATER = (
    "chat_template",
    "prompt",
    "labels",
    "background",
    "engine",
    "engine_args",
    "limit",
    "draw",
    "seed",
    "part",
    "most_per_label",
)
"""The fields of a request that format version 1 has not."""


class StatesRequest(_Frozen):
    """What was asked for. A run is resumed only with the very same request: otherwise its bytes would differ.

    data: digest of the samples. layers: decoder blocks, 0-based.

    Fields of format version 2, None where nothing was said: chat_template, see `template_digest`. prompt: what was
    asked, with "{question}" for the sample's question; None where it was the question alone. labels: what labels a
    state, "truth" or a column of the samples; None for the model's own answer. background: how many background states
    are kept of an answer at most; None where there are none. engine: what ran the model; None for transformers.
    engine_args: further arguments of it that may change states; None for none. limit: how many of the file's
    samples were used, the first ones. draw: how many of these were drawn. seed: of that draw and of the background
    states; None for 0. part: (i, n) for every n-th of these samples from the i-th on, which stand in a folder
    part-i-of-n. most_per_label: how many states of one label are kept at most.
    """

    model: ModelIdentity
    data: StrictStr
    samples: Natural
    rule: StrictStr
    layers: tuple[Natural, ...]
    dtype: StrictStr
    batch_size: Positive
    shard_size: Positive
    max_new_tokens: Natural
    chat_template: Digest | None = None
    prompt: StrictStr | None = None
    labels: StrictStr | None = None
    background: Positive | None = None
    engine: Literal["vllm"] | None = None
    engine_args: dict[StrictStr, JsonValue] | None = None
    limit: Positive | None = None
    draw: Positive | None = None
    seed: Natural | None = None
    part: tuple[Positive, Positive] | None = None
    most_per_label: Positive | None = None

    @property
    def format_version(self) -> Literal[1, 2]:
        """The oldest format version that can say all of this."""
        return 1 if all(getattr(self, name) is None for name in _LATER) else 2

    @model_validator(mode="after")
    def _has_layers(self) -> StatesRequest:
        if len(set(self.layers)) != len(self.layers) or any(layer >= self.model.num_layers for layer in self.layers):
            raise ValueError(f"layers {list(self.layers)[:20]} must differ and lie below {self.model.num_layers}")
        return self


class SkippedSample(_Frozen):
    """A sample that gave no state, and why."""

    id: Shown
    reason: Shown


class StatesShard(_Frozen):
    """A finished shard: samples [start, stop) of the data, sha256 (hex) of each of its two files.

    rows: states of the rule. background: background states beside them; None where the folder keeps none. left_out: how
    many states of a label the request's `most_per_label` kept out; None for none (format version 2).
    """

    name: Annotated[StrictStr, Field(pattern=r"^rows-[0-9]{5,9}$")]
    start: Natural
    stop: Natural
    rows: Natural
    background: Natural | None = None
    left_out: dict[StrictStr, Count] | None = None
    sha256: dict[StrictStr, Digest]
    skipped: tuple[SkippedSample, ...] = ()

    @model_validator(mode="after")
    def _has_digests(self) -> StatesShard:
        files = {f"{self.name}.safetensors", f"{self.name}.jsonl"}
        if self.sha256.keys() != files:
            raise ValueError(f"sha256 must be given for {' and '.join(sorted(files))}, and for nothing else")
        if self.stop <= self.start:
            raise ValueError(f"{self.name} covers samples {self.start} to {self.stop}, which is none")
        return self


class StatesManifest(_Frozen):
    """manifest.json of a folder of states. `labels` is the vocabulary that the shards' label numbers index."""

    format_version: Literal[1, 2] = 1
    request: StatesRequest
    versions: dict[StrictStr, StrictStr]
    labels: tuple[StrictStr, ...] = ()
    shards: tuple[StatesShard, ...] = ()

    @model_validator(mode="after")
    def _gapless(self) -> StatesManifest:
        reached = 0
        for shard in self.shards:
            if shard.start != reached:
                raise ValueError(f"shard {shard.name} begins at sample {shard.start}; expected {reached}")
            reached = shard.stop
        if reached > self.request.samples:
            raise ValueError(f"the shards cover {reached} samples of {self.request.samples}")
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("two shards have one name")
        if any((shard.background is None) != (self.request.background is None) for shard in self.shards):
            raise ValueError("the shards and the request disagree on whether background states are kept")
        if self.request.most_per_label is None and any(shard.left_out for shard in self.shards):
            raise ValueError("a shard left states out, and the request names no most_per_label")
        return self

    @property
    def done(self) -> int:
        """How many samples the finished shards cover."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def complete(self) -> bool:
        """Whether every sample has been seen."""
        return self.done == self.request.samples

    @property
    def rows(self) -> int:
        """Number of states of the rule in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def background(self) -> int:
        """Number of background states in all shards."""
        return sum(shard.background or 0 for shard in self.shards)

    def provenance(self, method: str, seed: int | None, samples: Mapping[str, int], **versions: str) -> Provenance:
        """What an artefact made of these states says of them. samples: states by label. versions: further ones."""
        request = self.request
        return Provenance(
            dataset_digest=request.data,
            rule=request.rule,
            chat_template=request.chat_template,
            prompt=request.prompt,
            labels=request.labels,
            method=method,
            seed=seed,
            samples=dict(samples),
            versions={**self.versions, **versions},
        )

    @property
    def stand_for(self) -> dict[str, float]:
        """How many states each one of a label stands for, of the labels that `most_per_label` kept some out of."""
        left_out = sum((Counter(shard.left_out) for shard in self.shards), Counter[str]())
        return {label: 1 + count / (self.request.most_per_label or 1) for label, count in left_out.items()}

    @property
    def skipped(self) -> tuple[SkippedSample, ...]:
        """All samples that gave no state."""
        return tuple(skip for shard in self.shards for skip in shard.skipped)


def read_states_manifest(folder: Path) -> StatesManifest:
    """The manifest of a folder of states, whole or in the middle of its making.

    Raises:
        FormatError: none there, or not one of ours.
    """
    data = read_bytes(folder, MANIFEST_FILE, _MAX_BYTES)
    return parse_manifest(StatesManifest, data, f"{folder.name}/{MANIFEST_FILE}", versions=(1, 2))


def write_states_manifest(folder: Path, manifest: StatesManifest) -> StatesManifest:
    """Replace the folder's manifest in one step; what was written, in the format version that it needs.

    Raises:
        FormatError: a label or another text holds control characters.
    """
    manifest = manifest.model_copy(update={"format_version": manifest.request.format_version})
    check_text(manifest.model_dump(), f"{folder.name}/{MANIFEST_FILE}")
    write_whole(folder / MANIFEST_FILE, (manifest.model_dump_json(indent=1, exclude_none=True) + "\n").encode())
    return manifest


def write_shard(folder: Path, name: str, tensors: Mapping[str, npt.NDArray[Any]], answers: bytes) -> dict[str, str]:
    """Write a shard's two files, each in one step; the sha256 (hex) of each by file name."""
    contents = {f"{name}.safetensors": save(dict(tensors)), f"{name}.jsonl": answers}
    for file, content in contents.items():
        write_whole(folder / file, content)
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
