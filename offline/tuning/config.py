"""The configuration of a tuning: a YAML file, or the same as Python values.

    model: MODEL                     folder of the model; paths are relative to where the command runs
    data: FOLDER                     with train.jsonl, dev.jsonl and test.jsonl; or {train: …, dev: …, test: …}
    steerings:
      yes-to-no: {map: {yes: no}}    what is to become what
    candidates:                      what may do it; every one is tried at every layer and strength
      - {kind: coarse}
      - {kind: class-means}
      - {kind: kmeans, k: [20, 40]}
    layers: [3, 5]

A steering, and a candidate, may set its own `layers` and `alphas`. docs/tune.md lists every key.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DataError, SettingError
from ..steering.operating_point import MOST_COLLATERAL

__all__ = ["ALPHAS", "NULLS", "Candidate", "Goal", "Steering", "Tuning", "read_tuning"]

ALPHAS = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0)
"""The strengths that are tried where nothing else is said: steps of about the square root of two around 1."""

NULLS = 3
"""Random draws of a null control: one may by chance do more, or less, than most."""

Layers = tuple[Annotated[int, Field(ge=0)], ...]
Alphas = tuple[Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)], ...]
Count = Annotated[int, Field(ge=1)]
Kind = Literal["coarse", "class-means", "kmeans", "gated", "pairs", "shift"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    close = get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f" (did you mean {close[0]!r}?)" if close else ""
                    raise ValueError(f"the key {key!r} is unknown{hint}; allowed are {', '.join(cls.model_fields)}")
        return value


class Goal(_Strict):
    """How answers are judged.

    answers: an answer that is a word of the map is to become that word's target.
    words: every answer is to become one of `into`, or a right answer to a question of the type `type`.
    captions: a caption with a gendered word is to have none, and a neutral one.
    refusals: samples whose columns have the values of `at` are to be refused: with `text` to the letter, or where
        that is empty in any words that say so.
    style: a caption is to have more of the words of `into`, and to keep all others.
    concentrated: one answer is to gain, whichever it is on dev; on test it is that same answer.
    """

    kind: Literal["answers", "words", "captions", "refusals", "style", "concentrated"] = "answers"
    into: tuple[str, ...] = ()
    type: str = ""
    at: dict[str, str] = Field(default_factory=dict)
    text: str = ""
    gendered: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Goal:
        if self.kind == "words" and bool(self.into) == bool(self.type):
            raise ValueError("a goal of the kind 'words' needs either `into` (a list of words) or `type`")
        if self.kind == "style" and not self.into:
            raise ValueError("a goal of the kind 'style' needs `into`, the words that captions are to have more of")
        if self.kind == "refusals" and not self.at:
            raise ValueError("a goal of the kind 'refusals' needs `at`, such as {scene: sign}: what is to be refused")
        return self


class Candidate(_Strict):
    """What is tried.

    coarse: one vector. class-means, kmeans: fine, one concept per label or `k` clusters. gated: the coarse vector, only
    where a concept of an original label is the nearest. pairs: the `keep` likeliest pairs of `k` clusters, one by one.
    shift: each concept's own shift toward the model `toward`.

    scope: whether the gate of a fine or gated profile decides at every token, or once per answer. limit: the share of a
    concept's own states that the gate's limit keeps; None for no limit. split: a column of the samples whose
    values become concepts of their own, for `gated` and `shift`. also: strengths that are reported on test in any
    case, at the last layer. best: how many of the best are reported.
    """

    kind: Kind
    k: tuple[Count, ...] = (20,)
    scope: Literal["token", "once"] = "token"
    limit: Annotated[float, Field(ge=0, le=1)] | None = None
    split: str = ""
    keep: Count = 16
    layers: Layers = ()
    alphas: Alphas = ()
    also: Alphas = ()
    best: Count = 1


class Steering(_Strict):
    """One thing to be reached. map: original label → target label; where the configuration names a model `toward`, the
    vectors lead from the states of an original label to that model's states of the same samples, and the target is a
    name only.

    label: what labels a state: the model's own word ("answer"), or a column of the samples. groups: names for sets of
    labels; where they are given, every other label is "rest".
    """

    map: dict[str, str] = Field(min_length=1)
    goal: Goal = Goal()
    label: str = "answer"
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    layers: Layers = ()
    alphas: Alphas = ()
    candidates: tuple[Candidate, ...] = ()


class Parts(_Strict):
    """The samples files of the three parts."""

    train: Path
    dev: Path
    test: Path


class Ask(_Strict):
    """How many samples of a part are used, drawn with `seed`; None: all."""

    train: Count | None = None
    dev: Count | None = None
    test: Count | None = None
    seed: int = 0


class Tuning(_Strict):
    """A configuration. See the module, and docs/tune.md."""

    name: str = ""
    model: Path
    data: Path | Parts
    steerings: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,30}$")], Steering] = Field(min_length=1)
    candidates: tuple[Candidate, ...] = (Candidate(kind="coarse"), Candidate(kind="class-means"))
    layers: Layers = ()
    alphas: Alphas = ALPHAS
    toward: Path | None = None
    rule: str = "last-prompt"
    prompt: str | None = None
    where: dict[str, str] = Field(default_factory=dict)
    ask: Ask = Ask()
    max_tokens: Count = 16
    most_collateral: Annotated[float, Field(ge=0, le=1)] = MOST_COLLATERAL
    nulls: Count = NULLS
    serve: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        """The three samples files."""
        if isinstance(self.data, Parts):
            return self.data
        return Parts(**{part: self.data / f"{part}.jsonl" for part in ("train", "dev", "test")})

    def candidates_of(self, steering: Steering) -> tuple[Candidate, ...]:
        """What is tried for a steering, each with its layers and strengths: the nearest that are given count."""
        found = []
        for one in steering.candidates or self.candidates:
            layers = one.layers or steering.layers or self.layers
            alphas = one.alphas or steering.alphas or self.alphas or ALPHAS
            found.append(one.model_copy(update={"layers": layers, "alphas": alphas}))
        return tuple(found)

    @model_validator(mode="after")
    def _coherent(self) -> Tuning:
        for name, steering in self.steerings.items():
            for one in self.candidates_of(steering):
                if not one.layers:
                    raise ValueError(f"steering {name!r} names no layer; give `layers`, such as [3, 5]")
                if one.kind == "shift" and self.toward is None:
                    raise ValueError("a candidate of the kind 'shift' needs `toward`, the folder of the other model")
        return self


def read_tuning(path: Path) -> Tuning:
    """The configuration in a YAML file, named after the file unless it has a name.

    Raises:
        DataError: the file cannot be read or is no YAML. SettingError: a key or a value is wrong; names it.
    """
    try:
        content = yaml.load(path.read_text("utf-8"), Loader=_Plain)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file of YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is a YAML {type(content).__name__}; expected keys such as model, data and steerings")
    try:
        return Tuning.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("Path", "Parts"))
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingError(f"{path}: {where + ': ' if where else ''}{reason}") from error


class _Plain(yaml.BaseLoader):
    """Every value is text, so that `yes: no` are two words and not two truths; and no key comes twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = [key.value for key, _ in node.value]
        if twice := sorted({str(key) for key in seen if seen.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} comes twice", node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found
