"""What candidates are made from: the samples of the three parts, and states of the train part, made where they lack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.vectors import ModelIdentity

from ..errors import DataError
from ..states.labels import ANSWER, check_labels, label_of
from ..states.prompts import prompt_for, recorded
from ..states.relabel import Labels, labelled
from ..states.rules import parse
from ..states.samples import Sample, SampleFile, read_samples
from ..states.store import MANIFEST, LayerStates, load_background, load_states, open_manifest
from ..states.subset import stratified
from ..steering.gates import WORDS_IN_GROUPS
from .config import Tuning
from .goals import holds

if TYPE_CHECKING:
    from ..models.reader import Reader

__all__ = ["REST", "Material", "grouped", "labelled_by"]

REST = "rest"
"""The label of every state that no group names."""


@dataclass(frozen=True)
class Material:
    """The samples and states of a configuration. run: the run folder, whose `states` hold what was made.

    layers: of every configuration that shares these states, so that one pass through the model serves all.
    reader: gives the model of a folder; several configurations of one model share it.
    """

    tuning: Tuning
    run: Path
    layers: tuple[int, ...]
    reader: Callable[[Path], Reader]

    @cached_property
    def dev(self) -> tuple[Sample, ...]:
        """The samples that operating points are chosen on."""
        return self._part("dev")

    @cached_property
    def test(self) -> tuple[Sample, ...]:
        """The samples that are reported."""
        return self._part("test")

    @cached_property
    def train(self) -> SampleFile:
        """The samples that states are made from."""
        path = self.tuning.parts.train
        file = read_samples(path, self.tuning.ask.train)
        for steering in self.tuning.steerings.values():
            check_labels(file.samples, steering.label, path)
        return file

    @cached_property
    def prompt(self) -> str:
        """What is asked, of the model in memory and of the server."""
        return prompt_for(self.tuning.parts.train, self.tuning.prompt)

    @property
    def known(self) -> tuple[Sample, ...]:
        """The samples of all parts."""
        return (*self.train.samples, *self.dev, *self.test)

    def states(self, layer: int, model: Path | None = None) -> LayerStates:
        """States of the train part at one layer, of the tuned model or of another one."""
        return load_states(self.folder(model or self.tuning.model), layer)

    def background(self, layer: int) -> LayerStates | None:
        """The other positions of the same answers, see `load_background`."""
        return load_background(self.folder(self.tuning.model), layer)

    def folder(self, model: Path) -> Path:
        """The folder of a model's states of the train part, which is made, or finished, first.

        Raises:
            DataError, ModelError, SettingError: as `represent`.
        """
        file, rule = self.train, parse(self.tuning.rule)
        what = (ModelIdentity.of(model), file.digest, len(file.samples), str(rule), recorded(self.prompt))
        folder = self.run / "states" / self.name_of(model)
        if (folder / MANIFEST).exists():
            manifest = open_manifest(folder)
            request = manifest.request
            same = (request.model, request.data, request.samples, request.rule, request.prompt) == what
            if same and manifest.complete and set(self.layers) <= set(request.layers):
                return folder
            if not same or self.layers != request.layers:  # of another configuration, or of this one before an edit
                told = hashlib.sha256(repr((what, self.layers)).encode()).hexdigest()[:8]
                folder = folder.with_name(f"{folder.name}-{told}")
        from ..states import represent

        represent(
            self.reader(model),
            self.tuning.parts.train,
            rule,
            self.layers,
            folder,
            limit=self.tuning.ask.train,
            prompt=self.prompt,
            resume=True,
            progress=True,
        )
        return folder

    def name_of(self, model: Path) -> str:
        """What a model's states are called in the run folder: by model, data and rule."""
        data = self.tuning.parts.train
        words = data.parent.name if data.stem == "train" else data.stem
        return f"{model.resolve().name}-{words}-{self.tuning.rule.partition(':')[0]}"

    def _part(self, name: str) -> tuple[Sample, ...]:
        path: Path = getattr(self.tuning.parts, name)
        found = [sample for sample in read_samples(path).samples if holds(sample, self.tuning.where)]
        if not found:
            raise DataError(f"{path}: no sample has {_spoken(self.tuning.where)}; change `where`")
        for sample in found:
            if sample.image is not None and not sample.image.is_file():
                raise DataError(f"{path}: the picture {sample.image} of sample {sample.id!r} is missing")
        limit = getattr(self.tuning.ask, name)
        return stratified(found, limit, self.tuning.ask.seed) if limit else tuple(found)


def labelled_by(states: LayerStates, samples: Sequence[Sample], by: str) -> LayerStates:
    """The states, each labelled by what its sample has in a column, see `label_of`; "answer" leaves their own words."""
    if by == ANSWER:
        return states
    return labelled(states, Labels(by, {one.id: label for one in samples if (label := label_of(one, by))}))


def grouped(states: LayerStates, groups: dict[str, tuple[str, ...]]) -> LayerStates:
    """The states, each labelled by the group that its label is in, or REST; as they are without groups.

    The request says whether the groups are of words, and so speak of positions, or of a column's values, of samples.
    """
    if not groups:
        return states
    group_of = {label: name for name, labels in groups.items() for label in labels}
    column = states.manifest.request.labels
    how = WORDS_IN_GROUPS if column is None else f"{column} in groups"
    request = states.manifest.request.model_copy(update={"labels": f"{how} {', '.join(sorted(groups))}"})
    return replace(
        states,
        labels=tuple(group_of.get(label, REST) for label in states.labels),
        manifest=states.manifest.model_copy(update={"request": request}),
    )


def _spoken(values: dict[str, str]) -> str:
    return ", ".join(f"{column} = {value!r}" for column, value in values.items())
