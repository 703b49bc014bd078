"""Serves a model with vLLM and lets every request choose its steering.

    python serve.py MODEL --steering-profiles DIR [--steering-layers 3,5] [--steering-rows N] [any option of `vllm
    serve`]

It checks what can be checked before a model is loaded, merges trimtab into vLLM's configuration, and hands over to
vLLM's own server.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from pathlib import Path

# Where `VLLM_PLUGINS` is unset vLLM loads all of these; set, it is an allow-list for all groups at once.
_PLUGIN_GROUPS = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)


def main(arguments: list[str]) -> int:
    try:
        from trimtab.plugin.compat.versions import check_vllm, installed_vllm
        from trimtab.plugin.config import PLUGIN_NAME
        from trimtab.vectors.errors import TrimtabError
    except ModuleNotFoundError as error:
        print(f"serve.py: {error.name} is not installed in this Python; run: make install", file=sys.stderr)
        return 1
    ours, rest = _parser().parse_known_args(arguments)
    try:
        check_vllm(installed_vllm())
        os.environ["VLLM_PLUGINS"] = ",".join(_plugins(os.environ.get("VLLM_PLUGINS"), PLUGIN_NAME))
        _serve(ours, rest)
    except TrimtabError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve.py",
        usage="python serve.py MODEL --steering-profiles DIR [any option of vllm serve]",
        description="Serve MODEL with vLLM; requests choose a steering profile from DIR.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--steering-profiles", type=Path, required=True, metavar="DIR", help="folder of profile folders"
    )
    parser.add_argument(
        "--steering-layers", type=_layers, default=(), metavar="L,…", help="layers to arm beside those the profiles use"
    )
    parser.add_argument(
        "--steering-rows", type=int, default=0, metavar="N", help="rows and slots to keep free for later profiles"
    )
    return parser


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(layer) for layer in text.split(","))


def _plugins(allowed: str | None, ours: str) -> list[str]:
    """The allow-list that vLLM would have used, and ours."""
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
    else:
        names = [point.name for group in _PLUGIN_GROUPS for point in importlib.metadata.entry_points(group=group)]
    return list(dict.fromkeys([*names, ours]))


def _serve(ours: argparse.Namespace, rest: list[str]) -> None:
    # The plugin's names must be in the environment before vLLM is imported.
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from trimtab.plugin import engine_args

    cli_env_setup()  # type: ignore[no-untyped-call]
    parser = FlexibleArgumentParser(prog="serve.py")  # type: ignore[no-untyped-call]
    args = make_arg_parser(parser).parse_args(rest)
    validate_parsed_serve_args(args)
    model = args.model_tag or args.model
    steering = engine_args(
        ours.steering_profiles,
        model=model if Path(model).is_dir() else None,
        layers=ours.steering_layers,
        rows=ours.steering_rows,
        additional_config=args.additional_config,
    )
    args.additional_config = steering["additional_config"]
    ServeSubcommand.cmd(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
