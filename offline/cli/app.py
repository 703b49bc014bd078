"""The command `trimtab`: from a model and questions to steering profiles, one step per command.

Results go to stdout, progress and warnings to stderr. Whatever is wrong is one sentence on stderr and exit code 1.
torch is imported by the commands that need it, so that the others start at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import printable
from trimtab.vectors.imports import Format, families_of
from trimtab.vectors.manifest import Positions, template_digest

from ..errors import SettingError
from ..models.chat import template_in
from ..run import is_run
from . import show
from .ab import ab
from .concepts import choose_k, dictionary, ground
from .console import OneSentence, display, say
from .data import data
from .evaluate import evaluate
from .options import (
    MODEL_FOLDER,
    AlphaDefault,
    AlphaMax,
    AlphaMin,
    Description,
    Force,
    ProfileName,
    RegistryFolder,
    a_file,
    a_folder,
)
from .place import Run, made_at, noted
from .profile import profile
from .relabel import relabel
from .report import report
from .represent import represent
from .saving import save_and_say, settings_of
from .shift import shift, shift_profile, watch
from .tune import tune

ANY_FOLDER = a_folder("give a profile, a dictionary, a folder of states or of findings, or a run folder")
_WIDTH = 140
"""Columns of a run's tables that go to a file: names are whole there."""
_ANY_FOLDER_HELP = "A profile, a dictionary, a folder of states or of findings, or a run folder."


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Another tool's vectors.", callback=a_file("give a file of vectors")),
    ],
    model: Annotated[
        Path, typer.Option(help="Folder of the model that the vectors were made for.", callback=MODEL_FOLDER)
    ],
    name: ProfileName,
    registry: RegistryFolder = None,
    run: Run = None,
    format: Annotated[
        Format | None, typer.Option(help="gguf (repeng, llama.cpp), pt (torch) or other; by default the file's ending.")
    ] = None,
    any_family: Annotated[
        bool, typer.Option("--any-family", help="Import even if the file names another family of models.")
    ] = False,
    layer: Annotated[
        list[int] | None,
        typer.Option("--layer", "-l", help="Decoder layer, 0-based, to keep; repeatable. Default: all."),
    ] = None,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = "all",
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = -2.0,
    alpha_max: AlphaMax = 2.0,
    description: Description = "",
    force: Force = False,
) -> None:
    """Make a coarse profile of another tool's vectors."""
    from ..steering.foreign import imported_profile, read_foreign

    into = made_at(run, "profiles", registry, "--registry")
    made = imported_profile(
        name,
        read_foreign(file, format, None if any_family else families_of(model)),
        ModelIdentity.of(model),
        source=file.name,
        layers=layer,
        **settings_of(positions, alpha_default, alpha_min, alpha_max, description),
    )
    save_and_say(made, into, force)
    noted(run)


def inspect(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help=_ANY_FOLDER_HELP, callback=ANY_FOLDER),
    ],
) -> None:
    """Show what a folder holds."""
    if is_run(folder):
        from .show_run import described_run

        return display(described_run(folder), width=_WIDTH)
    display(show.described(show.load_any(folder)))


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help=_ANY_FOLDER_HELP, callback=ANY_FOLDER),
    ],
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that it must be made for.", callback=MODEL_FOLDER)
    ] = None,
) -> None:
    """Check every byte that a folder's manifest speaks of, and for which model it was made."""
    if is_run(folder):
        from .show_run import verified_run

        if model is not None:
            raise SettingError("a run folder is not made for one model; leave --model out, or verify a folder in it")
        return typer.echo(printable(f"{folder}: {verified_run(folder)}, whole"))
    found = show.load_any(folder)
    if model is not None:
        show.model_of(found).check(ModelIdentity.of(model))
        made_with, own = show.template_of(found), template_in(model)
        if made_with is not None and own is not None and made_with != template_digest(own):
            say(
                f"{folder}: was made with another chat template, or with arguments of it; serve it with the same "
                "--chat-template and --default-chat-template-kwargs, or its prompts differ from those of its states"
            )
    for_whom = f", and made for {model}" if model is not None else ""
    typer.echo(printable(f"{folder}: {show.kind_of(found)}, whole{for_whom}"))


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trimtab {version('trimtab')}")
        raise typer.Exit


def _trimtab(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Concept dictionaries and steering profiles for language models that see."""


_EPILOG = """\
Example, from a model to a profile that turns "yes" into "no":

  trimtab represent MODEL questions.jsonl --rule last-prompt -l 31 --out states

  trimtab dictionary states -l 31 --method class-means --out concepts

  trimtab profile states -d concepts -m yes=no --name no --registry profiles

  trimtab-serve MODEL --steering-profiles profiles

Exit codes: 0 done. 1 it cannot be done, and one sentence on stderr says why. 2 the command line cannot be read, or a \
package is not installed. 3 a watched checkpoint is past its threshold, or \
units of an experiment do not follow its weights.
"""

_COMMANDS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "From data to states": {"data": data, "represent": represent, "relabel": relabel},
    "From states to concepts": {"dictionary": dictionary, "choose-k": choose_k, "ground": ground},
    "What a fine-tune changes": {"shift": shift, "watch": watch},
    "Steering profiles": {"profile": profile, "shift-profile": shift_profile, "import": import_},
    "Measure and show": {"evaluate": evaluate, "tune": tune, "report": report, "ab": ab},
    "Look into folders": {"inspect": inspect, "verify": verify},
}

app = typer.Typer(
    cls=OneSentence,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=_EPILOG,
)
app.callback()(_trimtab)
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)
