"""A folder in which models are compared: the states of each by name, the dictionaries, the findings.

    RUN/states/base, RUN/states/finetuned, RUN/states/step-000040   see `trimtab.offline.states.store`
    RUN/dictionaries/base, RUN/dictionaries/finetuned         dictionaries of the first half of the samples
    RUN/shift-*.json, drift-*.json, table-*.json              see `trimtab.offline.findings`

Whatever is there already is not made again, and a run that was interrupted is continued.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.errors import TrimtabError

from ..concepts.kmeans import kmeans
from ..errors import DataError
from ..findings import ShiftFound
from ..models.reader import Reader
from ..states.collect import represent
from ..states.paired import Pairs, check_comparable, pair_states
from ..states.rules import Rule
from ..states.store import LayerStates, load_states, open_manifest
from .study import study_shift
from .training import Training
from .watch import Drift, Watched

__all__ = ["BASE", "TUNED", "ShiftRun", "dictionary_of", "pairs_of"]

BASE, TUNED = "base", "finetuned"


@dataclass(frozen=True)
class ShiftRun:
    """What is asked of every model of a run. data, rule, limit, batch_size, prompt: as `represent` takes them."""

    out: Path
    data: Path
    rule: Rule
    layer: int
    k: int = 20
    seed: int = 0
    limit: int | None = None
    batch_size: int = 32
    progress: bool = False
    prompt: str | None = None

    def states(self, name: str, model: Reader) -> LayerStates:
        """The states of a model, from RUN or made anew; those of another model under that name are an error."""
        folder = self.out / "states" / name
        represent(
            model,
            self.data,
            self.rule,
            [self.layer],
            folder,
            limit=self.limit,
            prompt=self.prompt,
            batch_size=self.batch_size,
            background=0,
            resume=True,
            progress=self.progress,
        )
        return load_states(folder, self.layer)

    def study(self, base: Reader, tuned: Reader, alpha: float = 1.0) -> ShiftFound:
        """Compare two models, and keep the dictionaries of both.

        Raises:
            SettingError: models that cannot be compared, a k beyond the states; and all of `represent`.
        """
        check_comparable(base.identity, tuned.identity)
        pairs = pair_states(self.states(BASE, base), self.states(TUNED, tuned))
        study = study_shift(pairs, base, tuned, k=self.k, seed=self.seed, alpha=alpha)
        for name, dictionary in ((BASE, study.base), (TUNED, study.tuned)):
            dictionary.save(self.out / "dictionaries" / name, overwrite=True)
        return study.found

    def watched(self, base: Reader) -> Watched:
        """The concepts of the original, of all its states."""
        states = self.states(BASE, base)
        return Watched(states, kmeans(states, self.k, self.seed), base)

    def drifts(self, watched: Watched, training: Training, settled: float = 0.0) -> Iterator[Drift]:
        """The checkpoints of a training that were not there before, one after the other.

        One that cannot be loaded, or is not of the original's form, is left out and named. Adapters are put on the
        original; its processor and its chat template serve a checkpoint that has none.
        """
        for step, path in training.fresh(settled):
            try:
                model = watched.original.like(path)
                check_comparable(watched.dictionary.model, model.identity)
            except (TrimtabError, OSError) as error:
                training.leave_out(path, str(error))
                continue
            yield watched.drift(step, self.states(path.name, model), model)


def pairs_of(run: Path) -> Pairs:
    """The paired states of a run that compared two models.

    Raises:
        DataError: RUN holds no such comparison.
    """
    folders = [run / "states" / name for name in (BASE, TUNED)]
    if not all(folder.is_dir() for folder in folders):
        raise DataError(f"{run}: holds no comparison of two models; make one with `trimtab shift BASE FINETUNED`")
    layer = open_manifest(folders[0]).request.layers[0]
    a, b = (load_states(folder, layer) for folder in folders)
    return pair_states(a, b)


def dictionary_of(run: Path, name: str) -> ConceptDictionary:
    """The dictionary of a run's model: `BASE` or `TUNED`."""
    return ConceptDictionary.load(run / "dictionaries" / name)
