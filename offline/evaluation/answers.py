"""The answers of a run on disk: what was asked, who steered, and one line for each answer as it came.

    request.json    what was asked of which data and model; a run is continued only with the very same
    served.json     the profiles, strengths and digests that the endpoint says it steered with
    answers.jsonl   one line per sample: id, and the answer or why there is none; the last line of a sample counts

Each line is with the system before the next question is asked, and all are on the disk at the end. A kill leaves at
most a torn last line, which is taken off.
One process writes at a time: it holds a lock on answers.jsonl.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DataError, SettingError
from ..files import write_whole
from ..states.samples import Sample

__all__ = ["Answered", "AnswersFolder", "RunRequest", "Served", "read_answers", "texts"]

Model = TypeVar("Model", bound=BaseModel)

REQUEST, SERVED, ANSWERS = "request.json", "served.json", "answers.jsonl"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRequest(_Frozen):
    """What answers depend on. data: the digest of the data set's files. Not the address: servers may move.

    extra: more fields of each request, such as logit_bias. seed: of the draw where `samples` were drawn from more; None
    where all were asked.
    """

    format: str
    data: str
    samples: int
    seed: int | None = None
    model: str
    steering: Any = None
    prompt: str
    max_tokens: int
    temperature: float = 0.0
    extra: dict[str, Any] | None = None


class Served(_Frozen):
    """The headers X-Steering-Profile, -Alpha and -Digest of an answer, as they came."""

    profile: str
    alpha: str | None = None
    digest: str | None = None


class Answered(_Frozen):
    """One line. text: the answer, None where `skipped` says why there is none. cut: it reached the longest length.

    reasoned: the answer is empty, and the server gave its reasoning instead.
    """

    id: str
    text: str | None = None
    skipped: str | None = None
    cut: bool = False
    reasoned: bool = False


class AnswersFolder:
    """A run's folder. `served` is None until an answer says who steered."""

    def __init__(self, folder: Path, request: RunRequest, *, resume: bool = False) -> None:
        """Begin a new folder, or with `resume` continue one.

        Raises:
            DataError: it holds a run already and `resume` is not asked for, another process is writing to it, or a
                file of it is not ours.
            SettingError: it holds another run.
        """
        self.folder = folder
        self.request = request
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _locked(folder / ANSWERS)
        try:
            self._refuse_strays()
            self.answered = {one.id: one for one in _whole_lines(folder / ANSWERS, mend=True)}
            self._begin(resume)
            self.served = _load(folder / SERVED, Served) if (folder / SERVED).exists() else None
        except BaseException:
            self._file.close()
            raise

    def _refuse_strays(self) -> None:
        if (self.folder / ANSWERS).stat().st_size and not (self.folder / REQUEST).exists():
            raise DataError(
                f"{self.folder}: holds {ANSWERS} without {REQUEST}, so nothing says what was asked; choose another "
                "folder"
            )

    def _begin(self, resume: bool) -> None:
        path = self.folder / REQUEST
        if all(one.text is None for one in self.answered.values()):  # nothing to keep, such as where --images was wrong
            self._file.truncate(0)
            self.answered.clear()
            write_whole(path, _bytes(self.request))
            (self.folder / SERVED).unlink(missing_ok=True)
        elif not resume:
            raise DataError(f"{self.folder}: holds a run already; continue it with --resume or choose another folder")
        else:
            _same(_load(path, RunRequest), self.request, self.folder)

    def missing(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples that have no answer: never asked, or skipped for a reason that may have gone since."""
        return [one for one in samples if one.id not in self.answered or self.answered[one.id].text is None]

    def append(self, one: Answered) -> None:
        """Keep an answer, whatever becomes of this process."""
        self._file.write(one.model_dump_json(exclude_defaults=True).encode() + b"\n")
        self._file.flush()
        self.answered[one.id] = one

    def note_served(self, served: Served) -> None:
        """Keep who steered."""
        write_whole(self.folder / SERVED, _bytes(served))
        self.served = served

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def read_answers(folder: Path) -> tuple[RunRequest, dict[str, Answered]]:
    """A finished run's request and answers.

    Raises:
        DataError: there is none, or it lacks answers.
    """
    request = _load(folder / REQUEST, RunRequest)
    answered = {one.id: one for one in _whole_lines(folder / ANSWERS, mend=False)}
    if len(answered) < request.samples:
        raise DataError(
            f"{folder}: holds {len(answered):,} of {request.samples:,} answers; finish it with `trimtab evaluate … "
            "--resume`"
        )
    return request, answered


def texts(answered: Iterable[Answered]) -> dict[str, str]:
    """The answers by id, skipped samples left out."""
    return {one.id: one.text for one in answered if one.text is not None}


def _locked(path: Path) -> IO[bytes]:
    """The file, open for as long as the run; nobody else can have it so at the same time."""
    file = open(path, "ab")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DataError(f"{path.parent}: another run is writing to it; wait for it or choose another folder") from error
    return file


def _same(kept: RunRequest, asked: RunRequest, folder: Path) -> None:
    mine, theirs = asked.model_dump(), kept.model_dump()
    for name, value in mine.items():
        if value != theirs[name]:
            raise SettingError(
                f"{folder}: was begun with {name} {theirs[name]!r}, not {value!r}; repeat the first command with "
                "--resume, or choose another folder"
            )


def _whole_lines(path: Path, *, mend: bool) -> list[Answered]:
    """All lines but a torn last one, which is cut off the file where `mend` says so."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if mend and len(whole) < len(content):
        os.truncate(path, len(whole))
    lines = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            lines.append(Answered.model_validate_json(line))
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: is no answer of ours; delete the line and resume") from error
    return lines


def _load(path: Path, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a run of `trimtab evaluate`") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: is not of `trimtab evaluate` ({first['msg']}); choose another folder") from error


def _bytes(model: BaseModel) -> bytes:
    return (model.model_dump_json(indent=1) + "\n").encode()
