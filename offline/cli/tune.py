"""`trimtab tune`: from candidates to an operating point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SettingError
from .console import Plain, display, figure, quiet, say
from .endpoints import address, key_in
from .options import a_file
from .place import command_line, noted

if TYPE_CHECKING:
    from ..findings import Finding
    from ..tuning.running import Running

__all__ = ["tune"]

_WIDTH = 180
"""Columns of a table that goes to a file: what intervals need."""


def tune(
    config: Annotated[
        list[Path],
        typer.Argument(
            metavar="CONFIG…",
            help="YAML files, see docs/tune.md; those of one model share a server.",
            callback=a_file("give a file of YAML"),
        ),
    ],
    run: Annotated[Path, typer.Option(help="Run folder: states, answers, findings and the chosen profiles.")],
    serve_arg: Annotated[
        list[str] | None,
        typer.Option("--serve-arg", metavar="ARG", help="A further argument of trimtab-serve; repeatable, in order."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of a server that runs, up to and including /v1; candidates come and go in it."),
    ] = None,
    profiles: Annotated[
        Path | None, typer.Option(help="With --base-url: that server's folder of profiles, as this machine sees it.")
    ] = None,
    admin_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the environment variable that holds an admin key of that server."),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the environment variable that holds the key."),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="The name under which that server serves the model, where it serves several.")
    ] = None,
) -> None:
    """Try every candidate on dev through one server, choose the best, and report it on test beside its controls.

    A second run with the same folder asks only for what is missing.
    """
    from ..tuning import read_tuning
    from ..tuning import tune as run_all

    quiet()
    tunings = [one.model_copy(update={"serve": (*one.serve, *(serve_arg or ()))}) for one in map(read_tuning, config)]
    running = None
    if base_url is not None:
        if serve_arg:
            raise SettingError("--serve-arg is for a server that the command starts; leave it out beside --base-url")
        running = _running(base_url, profiles, admin_key_env, api_key_env, served_model_name)
    try:
        done = run_all(tunings, run, running=running, command=command_line(sys.argv[1:]), say=say)
    except KeyboardInterrupt:
        say(f"{run}: keeps the answers that came; run the same command to go on")
        raise
    noted(run)
    for one in done:
        _show(one.findings[0][1])
        for name, folder in one.profiles.items():
            chosen = one.outcomes[name].chosen
            assert chosen is not None
            typer.echo(f"{folder}: {chosen.made.series}, layer {chosen.made.layer}, alpha {chosen.strength:g}")


def _running(
    base_url: str, profiles: Path | None, admin_key_env: str | None, api_key_env: str | None, name: str | None
) -> Running:
    from ..evaluation.endpoint import Endpoint
    from ..tuning.running import Running

    if profiles is None or admin_key_env is None:
        raise SettingError(
            "--base-url needs --profiles, the running server's folder of profiles, and --admin-key-env, the name of "
            "the variable that holds an admin key of it"
        )
    endpoint = Endpoint(address(base_url), key_in(api_key_env, "--api-key-env"))
    return Running(endpoint, profiles, key_in(admin_key_env, "--admin-key-env"), name)


def _show(found: Finding) -> None:
    from rich.box import SIMPLE_HEAD

    from ..findings import TableFound
    from ..tuning.found import HEAD

    assert isinstance(found, TableFound)
    table = Plain(title=found.title, box=SIMPLE_HEAD, title_justify="left", caption=found.note, caption_justify="left")
    shown = [at for at, column in enumerate(found.columns) if column in HEAD]
    for at in shown:
        table.add_column(found.columns[at], justify="left" if at < 3 else "right")
    for row in found.rows:
        cells = (row[at] for at in shown)
        table.add_row(*(figure(cell) if isinstance(cell, float) else str(cell or "") for cell in cells))
    display(table, width=_WIDTH)
