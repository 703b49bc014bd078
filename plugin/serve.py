"""`trimtab-serve`: serves a model with vLLM and lets every request choose its steering.

    trimtab-serve [serve] MODEL --steering-profiles DIR [--steering-…] [any option of `vllm serve`]
    trimtab-serve doctor MODEL [--engine]
    trimtab-serve policy check|explain FILE
    trimtab-serve experiments check FILE

It checks what can be checked before a model is loaded, merges trimtab into vLLM's configuration, and hands over to
vLLM's own server, in a child process that `supervise` watches.

Exit codes: 0 after SIGTERM or SIGINT, 1 for a refusal or for an engine that ended by itself, 2 for a command line that
cannot be read or for a Python without vLLM.
"""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from trimtab.vectors.errors import TrimtabError

__all__ = ["main", "run"]

PROGRAM = "trimtab-serve"
_USAGE = f"{PROGRAM} [serve] MODEL --steering-profiles DIR [any option of vllm serve]"
_DOCTOR = "doctor"
_POLICY = "policy"
_EXPERIMENTS = "experiments"
_REFRESH = 10.0  # seconds between two looks at a desired state
_SHUTDOWN = 15  # seconds for running answers to end, where vLLM would cut them off

Serving = Callable[[float, float, str], None]

# Where `VLLM_PLUGINS` is unset vLLM loads all of these; set, it is an allow-list for all groups at once.
_PLUGIN_GROUPS = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)


def run() -> int:
    """Entry point of the console script: the exit code of a supervised server."""
    if importlib.util.find_spec("vllm") is None:
        return _say("vLLM is not installed in this Python; run: pip install 'trimtab[gpu]' (or 'trimtab[cpu]')", 2)
    if sys.argv[1:2] in ([_DOCTOR], [_POLICY], [_EXPERIMENTS]):
        return main(sys.argv[1:])
    from .supervise import supervise

    # Made by the process that outlives all others.
    with tempfile.TemporaryDirectory(prefix="trimtab-", ignore_cleanup_errors=True) as home:
        return supervise(PROGRAM, lambda serving: main(sys.argv[1:], serving, Path(home)))


def main(
    arguments: Sequence[str], serving: Serving = lambda seconds, delay, marker: None, home: Path | None = None
) -> int:
    """Serve in this process, and return an exit code.

    arguments: the command line after the program's name. serving: see `supervise`. home: an empty folder for what the
    server's processes share, or None for a new one.
    """
    word, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if word == _DOCTOR:
        from . import doctor

        return doctor.main(rest)
    if word == _POLICY:
        from .control.policy import command

        return command.main(rest)
    if word == _EXPERIMENTS:
        from .control.experiments import command as experiments

        return experiments.main(rest)
    rest = rest if word == "serve" else arguments
    if about := [argument for argument in rest if argument.startswith("--help=")]:
        _vllm_arguments(about)  # shows vLLM's own help and exits
    ours, theirs = _parser().parse_known_args(rest)
    try:
        _serve(ours, theirs, serving, home or Path(tempfile.mkdtemp(prefix="trimtab-")))
    except TrimtabError as error:
        return _say(str(error), 1)
    return 0


def _say(sentence: str, code: int) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=_USAGE,
        description="Serve MODEL with vLLM; requests choose a steering profile from DIR.",
        epilog=f"`{PROGRAM} --help=all` shows the options of vllm serve, `{PROGRAM} doctor --help` a look at a model, "
        f"`{PROGRAM} policy --help` a look at an access policy, `{PROGRAM} experiments --help` one at experiments.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--steering-profiles",
        required=True,
        metavar="DIR",
        help="folder of profile folders, hf://ORG/NAME@COMMIT, or a URL of fsspec such as s3://bucket/profiles",
    )
    parser.add_argument(
        "--steering-layers", type=_layers, default=(), metavar="L,…", help="layers to arm beside those the profiles use"
    )
    parser.add_argument(
        "--steering-rows",
        type=int,
        metavar="N",
        help="rows and slots to keep free for later profiles (where profiles can change: as many as they have now)",
    )
    parser.add_argument(
        "--steering-refresh", type=_seconds, metavar="S", help="look for changed profiles every S seconds"
    )
    parser.add_argument(
        "--steering-desired", type=Path, metavar="FILE", help="YAML that names the versions to serve; implies a refresh"
    )
    parser.add_argument(
        "--steering-state",
        type=Path,
        metavar="DIR",
        help="folder for what is served now and the audit log (a temporary one)",
    )
    parser.add_argument(
        "--steering-admin-keys",
        type=Path,
        metavar="FILE",
        help="keys that may change profiles, one per line (beside those in TRIMTAB_ADMIN_KEYS)",
    )
    parser.add_argument(
        "--steering-policy",
        type=Path,
        metavar="FILE",
        help="YAML that says who may be steered how, and what everybody gets",
    )
    parser.add_argument(
        "--steering-experiments",
        type=Path,
        metavar="FILE",
        help="YAML of experiments: which requests get which steering (needs TRIMTAB_UNIT_KEY in the environment)",
    )
    parser.add_argument(
        "--steering-exposures", type=Path, metavar="DIR", help="folder of the log of who was given what"
    )
    parser.add_argument(
        "--steering-drain",
        type=float,
        default=0.0,
        metavar="S",
        help="after SIGTERM, be unready for S seconds before the server begins to end",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 86400 seconds")
    return seconds


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(layer) for layer in text.split(","))


def _plugins(allowed: str | None, ours: str) -> list[str]:
    """The allow-list that vLLM would have used, and ours."""
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
    else:
        names = [point.name for group in _PLUGIN_GROUPS for point in importlib.metadata.entry_points(group=group)]
    return list(dict.fromkeys([*names, ours]))


def _serve(ours: argparse.Namespace, theirs: list[str], serving: Serving, home: Path) -> None:
    from .compat.versions import check_vllm, installed_vllm
    from .config import PLUGIN_NAME, Live, server_args
    from .control.begin import begin, make_log_folder, share_keys, share_metrics
    from .control.sources import local_folder
    from .control.state import State
    from .errors import StartupError

    check_vllm(installed_vllm())
    if (ours.steering_experiments is None) != (ours.steering_exposures is None):
        raise StartupError("--steering-experiments FILE and --steering-exposures DIR go together; give both or neither")
    share_metrics(home / "metrics")
    folder = ours.steering_state or home / "state"
    profiles, mirror = local_folder(ours.steering_profiles, folder / "profiles")
    live = Live(
        state=folder,
        refresh=ours.steering_refresh or (_REFRESH if ours.steering_desired else 0.0),
        desired=ours.steering_desired,
        source="" if mirror is None else mirror.url,
        experiments=ours.steering_experiments,
        exposures=ours.steering_exposures,
    )
    can_change = share_keys(ours.steering_admin_keys) or live.refresh > 0
    # Before vLLM is imported: it reads the names of plugins from the environment.
    os.environ["VLLM_PLUGINS"] = ",".join(_plugins(os.environ.get("VLLM_PLUGINS"), PLUGIN_NAME))
    args = _vllm_arguments(theirs)
    if not any(re.match(r"--shutdown[-_]timeout(=|$)", word) for word in theirs):
        args.shutdown_timeout = _SHUTDOWN
    model = args.model_tag or args.model
    steering, registry = server_args(
        profiles,
        model=model if Path(model).is_dir() else None,
        layers=ours.steering_layers,
        rows=0 if ours.steering_rows is None and not can_change else ours.steering_rows,
        live=live,
        policy=ours.steering_policy,
        additional_config=args.additional_config,
    )
    state = State(live.state)
    begin(state, registry, live.desired, ours.steering_policy, live.experiments)
    if live.exposures is not None:
        make_log_folder(live.exposures)
    args.additional_config = steering["additional_config"]
    from vllm.entrypoints.cli.serve import ServeSubcommand

    serving(args.shutdown_timeout, ours.steering_drain, str(state.draining.absolute()))
    try:
        ServeSubcommand.cmd(args)
    except OSError as error:  # vLLM takes its port before anything else
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartupError(f"port {args.port} is taken; give another --port, or end what listens there") from error


def _vllm_arguments(arguments: list[str]) -> argparse.Namespace:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()  # type: ignore[no-untyped-call]
    parser = FlexibleArgumentParser(prog=PROGRAM)  # type: ignore[no-untyped-call]
    args: argparse.Namespace = make_arg_parser(parser).parse_args(arguments)
    validate_parsed_serve_args(args)
    return args


if __name__ == "__main__":
    sys.exit(run())
