"""From a model and a file of samples to a folder of representations."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from trimtab.vectors.states import SkippedSample, StatesManifest, StatesRequest, write_states_manifest

from ..errors import DataError, SettingError
from ..images import UnreadableImage, open_image
from ..models.chat import ChatTemplate
from ..models.reader import Precision, Question, Reader, Reading, UnreadError
from ..progress import progress as shown
from .background import drawn, others
from .draft import Draft
from .labels import ANSWER, check_labels, label_of
from .prompts import QUESTION, check_prompt, filled, prompt_for, recorded
from .rules import LastPrompt, Rule
from .samples import Sample, check_pictures, read_samples
from .store import MANIFEST, check_shard, open_manifest

BACKGROUND = 4
"""Background states of an answer, unless another number is asked for."""
_BATCHES_PER_SHARD = 8


def represent(
    model: Path | Reader,
    data: Path,
    rule: Rule,
    layers: Sequence[int],
    out: Path,
    *,
    limit: int | None = None,
    batch_size: int = 32,
    dtype: Precision = "float32",
    device: str | None = None,
    template: ChatTemplate | None = None,
    prompt: str | None = None,
    labels: str = ANSWER,
    max_new_tokens: int | None = None,
    background: int = BACKGROUND,
    resume: bool = False,
    progress: bool = False,
) -> StatesManifest:
    """Ask a model every question of a data file and keep the states that a rule asks for.

    model: a model folder, or a `Reader` of it (whose dtype, device and template then count). data: see `read_samples`.
    layers: decoder blocks, 0-based. out: a new folder; with `resume` also one that an interrupted run left, which is
    continued to the same bytes that an uninterrupted run writes (given the same machine and number of threads, on which
    the last bits of any model's numbers depend). prompt: what is asked, see `prompt_for`. labels: what labels a state,
    see `label_of`. max_new_tokens: where an answer is cut; None lets the rule say. background: how many of an answer's
    other positions are kept as well, at most; see `load_background`. With 0 an answer ends as soon as the rule has
    enough of it.

    Everything is streamed: at most one shard (8 batches) is in memory.

    max_new_tokens 0 is for last-prompt alone: the prompt is read and nothing is generated, which takes a tenth of the
    time; the states then have no label.

    A batch that does not fit in memory is read in halves. A picture that cannot be read, a sample without a label, one
    that does not fit by itself, and an answer without a state are recorded in the manifest as skipped, with the reason.

    Raises:
        DataError: the samples, a folder that exists, no picture at all, no state at all. ModelError. SettingError:
            layers, sizes, another request.
    """
    max_new_tokens = rule.usual_length if max_new_tokens is None else max_new_tokens
    fewest = 0 if isinstance(rule, LastPrompt) else 1
    if batch_size < 1 or max_new_tokens < fewest or background < 0:
        raise SettingError(
            f"batch size {batch_size}, {max_new_tokens} new tokens and {background} background states asked for; the "
            f"rule {rule} needs 1 or more, {fewest} or more and 0 or more"
        )
    prompt = prompt_for(data, prompt)
    file = read_samples(data, limit)
    check_pictures(file)
    check_prompt(prompt, file.samples)
    check_labels(file.samples, labels, data)
    if (out / MANIFEST).exists() and not resume:
        raise DataError(f"{out}: exists already; continue it with --resume or choose another folder")
    reader = model if isinstance(model, Reader) else Reader(model, dtype, device, template=template)
    request = StatesRequest(
        model=reader.identity,
        data=file.digest,
        samples=len(file.samples),
        rule=str(rule),
        layers=reader.check_layers(layers),
        dtype=str(reader.model.dtype).removeprefix("torch."),
        batch_size=batch_size,
        shard_size=batch_size * _BATCHES_PER_SHARD,
        max_new_tokens=max_new_tokens,
        chat_template=reader.chat.digest,
        prompt=recorded(prompt),
        labels=None if labels == ANSWER else labels,
        background=(background or None) if max_new_tokens else None,
    )
    manifest = _begin(out, request)
    with shown("represent", request.samples, manifest.done, show=progress) as advance:
        while not manifest.complete:
            start = manifest.done
            samples = file.samples[start : start + request.shard_size]
            draft = Draft(start, list(manifest.labels))
            try:
                for batch in _batches(samples, batch_size):
                    _read_batch(reader, rule, request, [(start + i, samples[i]) for i in batch], draft)
                    advance(len(batch))
                manifest = draft.finish(out, manifest, samples)
                manifest = write_states_manifest(out, manifest)
            except KeyboardInterrupt:
                if progress:
                    kept = f"{out}: keeps {open_manifest(out).done:,} of {request.samples:,} samples"
                    print(f"{kept}; run the same command with --resume to go on", file=sys.stderr)
                raise
    if not manifest.rows:
        reason, count = Counter(skip.reason for skip in manifest.skipped).most_common(1)[0]
        raise DataError(
            f"{out}: holds no state at all, all {request.samples:,} samples were skipped ({count:,} because: "
            f"{reason}); "
            "mend the samples or choose another rule, and a new folder"
        )
    return manifest


def _begin(out: Path, request: StatesRequest) -> StatesManifest:
    """The manifest of a fresh folder, or of the interrupted run in it."""
    if not (out / MANIFEST).exists():
        manifest = StatesManifest(
            request=request, versions={name: version(name) for name in ("torch", "transformers", "numpy")}
        )
        try:
            out.mkdir(parents=True, exist_ok=True)
            manifest = write_states_manifest(out, manifest)
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error.strerror})") from error
        return manifest
    manifest = open_manifest(out)
    before, now = manifest.request.model_dump(), request.model_dump()
    if differing := [name for name in now if before[name] != now[name]]:
        name = differing[0]
        raise SettingError(
            f"{out}: was begun with another {name.replace('_', ' ')} ({before[name]}, now {now[name]}); "
            "resume with the same settings or choose another folder"
        )
    for shard in manifest.shards:
        check_shard(out, shard)
    return manifest


def _batches(samples: Sequence[Sample], size: int) -> Iterable[list[int]]:
    """Indices in batches of like samples: by picture or none, then by length, so that little padding is needed."""
    order = sorted(range(len(samples)), key=lambda i: (samples[i].image is None, len(samples[i].question), i))
    pictured = [i for i in order if samples[i].image is not None]
    plain = [i for i in order if samples[i].image is None]
    for group in (pictured, plain):
        for at in range(0, len(group), size):
            yield group[at : at + size]


def _read_batch(
    reader: Reader, rule: Rule, request: StatesRequest, batch: Sequence[tuple[int, Sample]], draft: Draft
) -> None:
    """Read one batch and put its states, answers and skips into the draft."""
    asked: list[tuple[int, Question]] = []
    ids = {number: sample.id for number, sample in batch}
    prompt, labels = request.prompt or QUESTION, request.labels or ANSWER
    given = {number: label_of(sample, labels) for number, sample in batch}
    for number, sample in batch:
        if given[number] == "":
            draft.skipped[number] = SkippedSample(id=sample.id, reason=f"no label: the sample has no {labels!r}")
            continue
        try:
            image = None if sample.image is None else open_image(sample.image)
        except UnreadableImage as error:
            draft.skipped[number] = SkippedSample(id=sample.id, reason=str(error))
            continue
        asked.append((number, Question(filled(prompt, sample.question), image)))
    for number, reading in _readings(reader, rule, request, asked):
        if isinstance(reading, str):
            draft.skipped[number] = SkippedSample(id=ids[number], reason=reading)
            continue
        kept = rule.states(reading.answer, reader.spell)
        label = given[number]
        draft.add(number, reading, kept if label is None else [replace(one, label=label) for one in kept])
        if not kept:
            draft.skipped[number] = SkippedSample(
                id=ids[number], reason="no state: the answer has nothing that the rule keeps"
            )
        if request.background is not None:
            rest = others(reading.answer, reading.end, kept)
            draft.add(number, reading, drawn(rest, request.background, ids[number]), background=len(rest))


def _readings(
    reader: Reader, rule: Rule, request: StatesRequest, asked: Sequence[tuple[int, Question]]
) -> Iterator[tuple[int, Reading | str]]:
    """A reading for each question, or the reason why there is none: what cannot be read at once is read in halves."""
    if not asked:
        return
    try:
        questions = [question for _, question in asked]
        enough = rule.satisfied if request.background is None else _never
        readings = reader.read(questions, request.layers, request.max_new_tokens, enough)
    except UnreadError as error:
        reason = str(error)
    else:
        yield from zip((number for number, _ in asked), readings, strict=True)
        return
    # Not inside `except`: as long as the error lives, so do the tensors of the attempt that did not fit.
    if len(asked) == 1:
        yield asked[0][0], reason
        return
    half = (len(asked) + 1) // 2
    yield from _readings(reader, rule, request, asked[:half])
    yield from _readings(reader, rule, request, asked[half:])


def _never(text: str) -> bool:
    return False
