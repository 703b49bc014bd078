"""The options and arguments that several commands have: one meaning each, checked before anything slow starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, SettingError

if TYPE_CHECKING:
    from ..models.chat import ChatTemplate

__all__ = [
    "AlphaDefault",
    "AlphaMax",
    "AlphaMin",
    "BatchSize",
    "ChatTemplateArguments",
    "ChatTemplateFile",
    "Description",
    "Device",
    "Draw",
    "FindingName",
    "Findings",
    "Force",
    "Label",
    "Layer",
    "Layers",
    "Limit",
    "ProfileName",
    "Prompt",
    "RegistryFolder",
    "Resume",
    "Rule",
    "Samples",
    "StatesFolder",
    "a_file",
    "a_folder",
    "chat_template",
    "json_object",
    "parse_mapping",
    "there",
]


def a_folder(otherwise: str) -> Callable[[Any], Any]:
    """The check of an option that names a folder, or several. otherwise: what to do when there is none."""
    return _each(lambda path: path.is_dir(), "is no folder", otherwise)


def a_file(otherwise: str) -> Callable[[Any], Any]:
    """The check of an option that names a file. otherwise: what to do when there is none."""
    return _each(lambda path: path.is_file(), "is no file", otherwise)


def there(otherwise: str) -> Callable[[Any], Any]:
    """The check of an option that names a file or a folder. otherwise: what to do when there is none."""
    return _each(Path.exists, "", otherwise)


def _each(there: Callable[[Path], bool], wrong: str, otherwise: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        for path in value if isinstance(value, list) else [value]:
            if path is not None and not there(path):
                missing = wrong if path.exists() else "does not exist"
                raise DataError(f"{path}: {missing}; {otherwise}")
        return value

    return check


def chat_template(file: Path | None, arguments: str | None) -> ChatTemplate | None:
    """What --chat-template and --chat-template-kwargs say; None where neither is given.

    Raises:
        SettingError: arguments that are no JSON object.
    """
    if file is None and arguments is None:
        return None
    from ..models.chat import ChatTemplate

    return ChatTemplate(file, json_object("--chat-template-kwargs", arguments, '{"enable_thinking": false}'))


def json_object(option: str, text: str | None, example: str) -> dict[str, Any]:
    """The JSON object that an option holds; {} where it was not given.

    Raises:
        SettingError: it holds something else.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise SettingError(f"{option}: is not JSON ({error}); write an object, such as {example}") from error
    if not isinstance(found, dict):
        raise SettingError(f"{option}: must be a JSON object, such as {example}")
    return found


def parse_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """{"yes": "no"} from "yes=no", in lower case: what --map says.

    Raises:
        SettingError: no pair at all, a pair of another form, a word mapped to itself or to two words.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        original, _, target = (part.strip().lower() for part in pair.partition("="))
        if not original or not target or "=" in target:
            raise SettingError(f"cannot read the pair {pair!r}; expected <original word>=<target word>, as in yes=no")
        if original == target:
            raise SettingError(f"{original!r} is mapped to itself; give another target word")
        if mapping.setdefault(original, target) != target:
            raise SettingError(f"{original!r} is mapped to {mapping[original]!r} and to {target!r}; choose one")
    if not mapping:
        raise SettingError("no pair of words given; expected at least one <original word>=<target word>, as in yes=no")
    return mapping


MODEL_FOLDER = a_folder("give the folder of a model in the Hub's layout, downloaded beforehand")
SAMPLES_FILE = a_file("give a file of JSON lines with id, question and, optionally, image")

Samples = Annotated[
    Path,
    typer.Option(help="Samples file: JSON lines with id, question and, optionally, image.", callback=SAMPLES_FILE),
]
StatesFolder = Annotated[
    Path | None,
    typer.Argument(metavar="STATES", help="Folder that `trimtab represent` made, or its name in the folder of --run."),
]
Rule = Annotated[
    str, typer.Option(help="last-prompt, predicts:<word>,<word>, predicts:* (every word) or mean-generated.")
]
Layer = Annotated[int, typer.Option("--layer", "-l", min=0, help="Decoder layer, 0-based.")]
Layers = Annotated[list[int], typer.Option("--layer", "-l", min=0, help="Decoder layer, 0-based; repeatable.")]
Draw = Annotated[
    int | None,
    typer.Option(min=1, help="Use this many samples, drawn by chance with the same share of each type of question."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use this many samples only, the first of the file.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Number of samples in one batch.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, …; by default the GPU where there is one. auto: the layers over all GPUs and the host."
    ),
]
ChatTemplateFile = Annotated[
    Path | None,
    typer.Option(
        "--chat-template",
        metavar="FILE",
        help="The chat template that the server is started with; by default the model's own.",
        callback=a_file("give the file that the server gets as --chat-template"),
    ),
]
ChatTemplateArguments = Annotated[
    str | None,
    typer.Option(
        "--chat-template-kwargs",
        metavar="JSON",
        help="Arguments of the chat template, as the server gets them by --default-chat-template-kwargs.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="What is asked; {question} stands for the sample's question. Default: the prompt of a data.json beside "
        "the samples, else the question alone."
    ),
]
Label = Annotated[
    str,
    typer.Option(
        metavar="answer|truth|type|COLUMN",
        help="What labels a state: the word of the model's answer that it predicts, or its sample's answer, type or "
        "another column.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the artefact if it exists.")]
Findings = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder of findings, which `trimtab report` shows.")
]
FindingName = Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the finding among the others.")]
ProfileName = Annotated[str, typer.Option(help="Name of the profile and of its folder.")]
RegistryFolder = Annotated[
    Path | None,
    typer.Option("--registry", metavar="FOLDER", help="Folder of profiles; the new profile goes to FOLDER/<name>."),
]
AlphaDefault = Annotated[float, typer.Option(help="Strength of a request that names none.")]
AlphaMin = Annotated[float, typer.Option(help="Smallest strength; a negative one allows steering the other way.")]
AlphaMax = Annotated[float, typer.Option(help="Largest strength that a request may ask for.")]
Description = Annotated[str, typer.Option(help="One sentence for the profile's model card.")]
