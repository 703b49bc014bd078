"""From a model and a file of samples to a folder of representations."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trimtab.vectors.states import StatesManifest, StatesRequest, write_states_manifest

from ..errors import DataError, SettingError
from ..models.chat import ChatTemplate
from ..models.precision import Precision
from ..models.reader import Reader, Reading
from ..models.writing import Writing
from ..progress import begins
from ..progress import progress as shown
from .background import drawn, others
from .cap import Cap
from .draft import Draft
from .engine import Engine
from .labels import ANSWER, check_labels, label_of
from .parts import MANIFEST, check_alone, open_manifest, part_of
from .prompts import QUESTION, check_prompt, filled, prompt_for, recorded
from .rules import LastPrompt, Rule
from .samples import Sample, check_pictures, read_samples
from .sources import Asked, Source, Transformers
from .store import check_shard
from .subset import chosen

BACKGROUND = 4
"""Background states of an answer, unless another number is asked for."""
_BATCHES_PER_SHARD = 8


def represent(
    model: Path | Reader | Engine,
    data: Path,
    rule: Rule,
    layers: Sequence[int],
    out: Path,
    *,
    limit: int | None = None,
    draw: int | None = None,
    part: tuple[int, int] | None = None,
    most_per_label: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    dtype: Precision = "auto",
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

    model: a model folder, a `Reader` of it, or an `Engine` (whose dtype, device and template then count). data: see
    `read_samples`. layers: decoder blocks, 0-based. out: a new folder; with `resume` also one that an interrupted run
    left, which is continued to the same bytes that an uninterrupted run writes (given the same machine and number of
    threads, on which the last bits of any model's numbers depend; an engine's depend on its batches as well). prompt:
    what is asked, see `prompt_for`. labels: what labels a state, see `label_of`. max_new_tokens: where an answer is
    cut; None lets the rule say. background: how many of an answer's other positions are kept as well, at most; see
    `load_background`. With 0 an answer ends as soon as the rule has enough of it.

    Of the file's samples: limit: the first ones. draw: so many of these, by `seed`, with the same share of each type.
    part: (i, n): of these, every n-th from the i-th on, which go to the folder `part_of(out, i, n)`; the n parts are
    read as one. most_per_label: states of a label (of each part) beyond these are left out.

    Everything is streamed: at most one shard (8 batches) is in memory.

    max_new_tokens 0 is for last-prompt alone: the prompt is read and nothing is generated, which takes a tenth of the
    time. It is the default where answers serve nothing: the label is not the model's own word, and background is 0.

    A batch that does not fit in memory is read in halves. A picture that cannot be read, a sample without a label, one
    that does not fit by itself, and an answer without a state are recorded in the manifest as skipped, with the reason.

    Raises:
        DataError: the samples, a folder that exists, no picture at all, no state at all. ModelError. SettingError:
            layers, sizes, another request.
    """
    fewest = 0 if isinstance(rule, LastPrompt) else 1
    if max_new_tokens is None:  # an answer that neither labels a state nor has one is not asked for
        max_new_tokens = 0 if not fewest and labels != ANSWER and not background else rule.usual_length
    if batch_size < 1 or max_new_tokens < fewest or background < 0:
        raise SettingError(
            f"batch size {batch_size}, {max_new_tokens} new tokens and {background} background states asked for; the "
            f"rule {rule} needs 1 or more, {fewest} or more and 0 or more"
        )
    prompt = prompt_for(data, prompt)
    file = chosen(read_samples(data, limit), draw, part, seed)
    check_pictures(file)
    check_prompt(prompt, file.samples)
    check_labels(file.samples, labels, data)
    check_alone(out, part)
    if part is not None:
        out = part_of(out, *part)
    if (out / MANIFEST).exists() and not resume:
        raise DataError(f"{out}: exists already; continue it with --resume or choose another folder")
    if isinstance(model, Engine):
        begins(f"starting vLLM with {model.writing.folder}", progress)
        source: Source = model
    else:
        if isinstance(model, Path):
            begins(f"loading {model}", progress)
            model = Reader(model, dtype, device, template=template)
        source = Transformers(model)
    writing = source.writing
    request = StatesRequest(
        model=writing.identity,
        data=file.digest,
        samples=len(file.samples),
        rule=str(rule),
        layers=writing.check_layers(layers),
        dtype=source.dtype,
        batch_size=batch_size,
        shard_size=batch_size * _BATCHES_PER_SHARD,
        max_new_tokens=max_new_tokens,
        chat_template=writing.chat.digest,
        prompt=recorded(prompt),
        labels=None if labels == ANSWER else labels,
        background=(background or None) if max_new_tokens else None,
        engine=source.engine,
        engine_args=dict(source.arguments) or None,
        limit=limit,
        draw=draw,
        seed=seed or None,
        part=part,
        most_per_label=most_per_label,
    )
    manifest = _begin(out, request, source.packages)
    try:
        with shown("represent", request.samples, manifest.done, show=progress) as advance:
            manifest = _shards(source, rule, file.samples, out, manifest, advance)
    except KeyboardInterrupt:
        if progress:
            kept = f"{out}: keeps {open_manifest(out).done:,} of {request.samples:,} samples"
            print(f"{kept}; run the same command {'again' if resume else 'with --resume'} to go on", file=sys.stderr)
        raise
    if not manifest.rows:
        reason, count = Counter(skip.reason for skip in manifest.skipped).most_common(1)[0]
        raise DataError(
            f"{out}: holds no state at all, all {request.samples:,} samples were skipped ({count:,} because: "
            f"{reason}); "
            "mend the samples or choose another rule, and a new folder"
        )
    return manifest


def _begin(out: Path, request: StatesRequest, packages: Sequence[str]) -> StatesManifest:
    """The manifest of a fresh folder, or of the interrupted run in it."""
    if not (out / MANIFEST).exists():
        manifest = StatesManifest(request=request, versions=_versions(("torch", "transformers", "numpy", *packages)))
        try:
            out.mkdir(parents=True, exist_ok=True)
            manifest = write_states_manifest(out, manifest)
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error.strerror})") from error
        return manifest
    manifest = open_manifest(out)
    before, now = manifest.request.model_dump(), request.model_dump()
    if differing := [name for name in now if before[name] != now[name]]:
        name = min(differing, key=lambda name: name == "samples")  # their number follows from other settings
        raise SettingError(
            f"{out}: was begun with another {name.replace('_', ' ')} ({before[name]}, now {now[name]}); "
            "resume with the same settings or choose another folder"
        )
    for shard in manifest.shards:
        check_shard(out, shard)
    return manifest


def _shards(
    source: Source,
    rule: Rule,
    samples: Sequence[Sample],
    out: Path,
    manifest: StatesManifest,
    advance: Callable[[int], None],
) -> StatesManifest:
    """Read and write what the manifest lacks, shard by shard; the manifest of the whole."""
    request = manifest.request
    if manifest.complete:
        return manifest
    cap = None if request.most_per_label is None else Cap(request.most_per_label, out, manifest)
    waiting: deque[Draft] = deque()  # a source may ask for a shard before it has given the one before

    def shards() -> Iterator[list[Asked]]:
        for start in range(manifest.done, len(samples), request.shard_size):
            waiting.append(Draft(start, samples[start : start + request.shard_size]))
            yield _asked(waiting[-1], request)

    enough = rule.satisfied if request.background is None else _never
    with closing(source.read(shards(), request, enough)) as read:  # whatever happens, an engine's process ends
        for readings in read:
            draft = waiting.popleft()
            advance(len(draft.skipped))
            for number, reading in readings:
                _keep(draft, number, reading, rule, source.writing, request)
                advance(1)
            manifest = write_states_manifest(out, draft.finish(out, manifest, cap))
    return manifest


def _asked(draft: Draft, request: StatesRequest) -> list[Asked]:
    """What is asked of the samples of a shard. One without a label is skipped."""
    prompt, labels = request.prompt or QUESTION, request.labels or ANSWER
    asked = []
    for number, sample in draft.samples.items():
        if label_of(sample, labels) == "":
            draft.skip(number, f"no label: the sample has no {labels!r}")
        else:
            asked.append(Asked(number, filled(prompt, sample.question), sample.image))
    return asked


def _keep(
    draft: Draft, number: int, reading: Reading | str, rule: Rule, writing: Writing, request: StatesRequest
) -> None:
    """Put what was read of a sample into the draft: the states of the rule, and some of the others."""
    if isinstance(reading, str):
        draft.skip(number, reading)
        return
    sample = draft.samples[number]
    kept = rule.states(reading.answer, writing.spell)
    label = label_of(sample, request.labels or ANSWER)
    draft.add(number, reading, kept if label is None else [replace(one, label=label) for one in kept])
    if not kept:
        draft.skip(number, "no state: the answer has nothing that the rule keeps")
    if request.background is not None:
        rest = others(reading.answer, reading.end, kept)
        draft.add(number, reading, drawn(rest, request.background, sample.id, request.seed or 0), background=len(rest))


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _never(text: str) -> bool:
    return False
