"""From a dictionary to its finding: concept cards with words and pictures, and how good the whole is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.vectors import ConceptDictionary

from ..errors import DataError, SettingError
from ..findings import Concept, ConceptsFound
from ..models.reader import Reader
from ..states.prompts import shown as question_of
from ..states.samples import Sample, read_samples
from ..states.store import ShardedStates
from .clip import clip_score
from .grounding import top_words
from .pictures import thumbnails, top_samples
from .quality import mean_overlap, residual, sizes

__all__ = ["concepts_found"]

SHOWN = 5
"""Pictures on a card."""
COMPARED = 50
"""Samples of a concept whose overlap with those of other concepts is measured."""
THUMBNAILS = "thumbnails"


def concepts_found(
    dictionary: ConceptDictionary,
    states: ShardedStates,
    model: Reader,
    run: Path,
    *,
    data: Path | None = None,
    clip: Path | None = None,
    title: str = "",
    progress: bool = False,
) -> tuple[ConceptsFound, dict[str, str]]:
    """The cards of a dictionary, and which samples have no picture on them although they should: reason by id.

    states: of the dictionary's model and layer, such as those that it was made from. model: whose unembedding gives the
    words. run: thumbnails go to its folder "thumbnails". data: the samples file of the states, which knows the
    pictures; without it the cards have words only. clip: a folder with a CLIP model, for the CLIPScore.
    progress: say how far it is.

    Raises:
        SettingError: states of another layer or model, or `clip` without `data`; ModelMismatchError: another `model`.
        DataError: another samples file than that of the states; what reading the states raises. ModelError: no CLIP.
    """
    _check(dictionary, states, model, data, clip)
    asked = {} if data is None else _samples(data, states)  # first, since it may be refused
    words = top_words(dictionary.centroids, model)
    samples = top_samples(dictionary, states, COMPARED)
    shown = [concept[:SHOWN] for concept in samples]
    pictures = {one: sample.image for one, sample in asked.items()}
    each = [(one,) for one in dict.fromkeys(one for concept in shown for one in concept)] if asked else []
    files, left_out = thumbnails(each, pictures, run / THUMBNAILS, progress=progress) if asked else ([], {})
    file_of = {one: f"{THUMBNAILS}/{names[0]}" for (one,), names in zip(each, files, strict=True) if names}
    questions = {one: question_of(states.manifest.request.prompt, asked[one].question) for one in file_of}
    grounds = [_grounds(concept, file_of, questions) for concept in shown]
    quality = {
        "mean pairwise word overlap": mean_overlap(words),
        "mean pairwise sample overlap": mean_overlap(samples),
        "reconstruction error": residual(dictionary, states).error,
        **sizes(dictionary),
    }
    if clip is not None:
        seen = [[path for one in concept if one not in left_out and (path := pictures[one])] for concept in shown]
        if (score := clip_score(words, seen, clip, progress=progress)) is not None:
            quality["CLIPScore"] = score
    cards = tuple(
        Concept(
            label=label,
            rows=int(count),
            purity=float(purity),
            words=said,
            images=tuple(ground),
            questions=tuple(ground.values()),
        )
        for label, count, purity, said, ground in zip(
            dictionary.labels, dictionary.counts, dictionary.purity, words, grounds, strict=True
        )
    )
    rule = states.manifest.request.rule
    found = ConceptsFound(
        title=title or f"Concepts of {rule}, layer {dictionary.layer} ({dictionary.method}, K = {len(cards)})",
        note=f"From {len(states):,} states by the rule {rule}; "
        f"{len(states.manifest.skipped):,} of {states.manifest.request.samples:,} samples gave none.",
        layer=dictionary.layer,
        method=dictionary.method,
        concepts=cards,
        quality=quality,
    )
    return found, left_out


def _check(
    dictionary: ConceptDictionary, states: ShardedStates, model: Reader, data: Path | None, clip: Path | None
) -> None:
    request = states.manifest.request
    if dictionary.layer != states.layer or dictionary.model != request.model:
        raise SettingError(
            f"a dictionary of layer {dictionary.layer} of {dictionary.model.architecture} was given for states of "
            f"layer {states.layer} of {request.model.architecture}; both must be of one layer and model"
        )
    dictionary.model.check(model.identity)
    if clip is not None and data is None:
        raise SettingError("a CLIPScore needs pictures; give the samples file of the states with --data")


def _grounds(concept: Sequence[str], file_of: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """What was asked about each picture of a concept, by the picture's file; several questions stand in a row."""
    found: dict[str, list[str]] = {}
    for one in concept:
        if one in file_of:
            found.setdefault(file_of[one], []).append(asked[one])
    return {file: " / ".join(dict.fromkeys(questions)) for file, questions in found.items()}


def _samples(data: Path, states: ShardedStates) -> Mapping[str, Sample]:
    file = read_samples(data)
    if file.digest != states.manifest.request.data:
        raise DataError(f"{data}: is not the file that the states come from (its sha256 differs); give that one")
    return {sample.id: sample for sample in file.samples}
