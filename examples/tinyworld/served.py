"""Greedy answers of a running server, through the client of `trimtab.offline.evaluation`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.tinyworld.ask import Sample
from trimtab.offline.evaluation.answers import AnswersFolder, RunRequest
from trimtab.offline.evaluation.endpoint import Endpoint, ask_all
from trimtab.offline.states.samples import Sample as Question

AT_ONCE = 32


def answers(
    base_url: str,
    model: str,
    folder: Path,
    samples: Sequence[Sample],
    lengths: Sequence[int],
    *,
    steering: Any = None,
    extra: Mapping[str, Any] | None = None,
    label: str = "",
) -> list[str]:
    """What the server says to each sample about its picture in `folder`, in the order of the samples.

    lengths: the most tokens of each answer. extra: more fields of a request, such as logit_bias. The client checks that
    the server steers as it was asked to.

    Raises:
        EndpointError: the server refused a question, went away, or steered otherwise.
    """
    endpoint = Endpoint(base_url, concurrency=AT_ONCE, max_refused=0)
    said: dict[str, str | None] = {}
    for length in sorted(set(lengths)):
        asked = [
            Question(str(number), sample.question, folder / sample.image)
            for number, (sample, most) in enumerate(zip(samples, lengths, strict=True))
            if most == length
        ]
        request = RunRequest(
            format="tinyworld",
            data=str(folder),
            samples=len(asked),
            model=model,
            steering=steering,
            prompt="{question}",
            max_tokens=length,
            extra=None if extra is None else dict(extra),
        )
        with tempfile.TemporaryDirectory() as kept:
            run = AnswersFolder(Path(kept), request)
            try:
                ask_all(endpoint, asked, run, progress=True, label=label)
            finally:
                run.close()
            said |= {one.id: one.text for one in run.answered.values()}
    found = [said[str(number)] for number in range(len(samples))]
    if None in found:
        raise FileNotFoundError(f"{folder / samples[found.index(None)].image}: is missing or no picture")
    return [str(text) for text in found]
