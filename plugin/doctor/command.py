"""The command line of the doctor, and its words.

Exit codes: 0 where nothing speaks against steering the model, 1 for a refusal or a difference, 2 for a command line
that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.vectors.errors import TrimtabError

from ..asking import ask
from ..compat.versions import check_vllm, installed_vllm
from .verdict import judge

if TYPE_CHECKING:
    from . import look

__all__ = ["main"]

PROGRAM = "trimtab-serve doctor"
PROMPT = "The colours of the rainbow are red, orange, yellow, green,"
# What vLLM reads while it is imported. One process starts sooner than three. On a CPU its cache would take most of the
# memory.
_USUAL = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
_BYTES_PER_ENTRY = 4  # tables hold float32


def main(arguments: Sequence[str]) -> int:
    """Look at a model, try it if asked to, say what was found; returns the exit code."""
    options = _parser().parse_args(arguments)
    for name, value in _USUAL.items():
        os.environ.setdefault(name, value)
    console = Console(highlight=False)
    try:
        check_vllm(installed_vllm())
        ask()  # classes of ours count, as they do in a server
        return _examine(options, console)
    except TrimtabError as error:
        console.print(f"[red]cannot be steered:[/] {escape(str(error))}")
        return 1


def _examine(options: argparse.Namespace, console: Console) -> int:
    from . import look  # not above: vLLM takes seconds to import, which --help need not wait for

    written = look.read(options.model)
    asked = _vllm_arguments(options)
    console.print(f"[bold]{escape(options.model)}[/]: {written.identity.architecture}")
    try:
        built = look.build(written.folder, {**asked, "dtype": options.dtype or "auto"})
    except TrimtabError:
        raise
    except Exception as error:  # whatever vLLM says of a model that it cannot serve
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        console.print(f"[red]vLLM cannot build it here:[/] {escape(first)}")
        return 1
    console.print(_facts(written, built))
    if not options.engine:
        for command, does in _next(options):
            console.print(f"{does}: {escape(command)}", soft_wrap=True)
        return 0
    return _try(options, written, built, asked, console)


def _facts(written: look.Written, built: look.Built) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    size = written.identity.hidden_size
    served = "vLLM's own class" if built.own else "vLLM's Transformers backend"
    rows = (
        ("decoder layers", f"{built.layers} of {size}, at {built.path} ({', '.join(built.kinds)})"),
        ("served by", f"{served}, {built.model}, in {built.dtype}"),
        ("pictures", "yes" if written.pictures else "no"),
        ("chat template", _template(written.template)),
        ("in the table", _compared(written.identity.architecture, built.own)),
        ("memory", f"{size * _BYTES_PER_ENTRY / 1024:.3g} KiB per table row and steered layer: 1 row for a coarse "
         "profile, 2 per concept for a fine one"),
        ("asked of vLLM", "nothing for requests without steering; after each steered layer, one addition in its graph"),
    )  # fmt: skip
    for name, value in rows:
        table.add_row(f"[dim]{name}[/]", escape(value))
    return table


def _template(digest: str | None) -> str:
    return "none: give one with --chat-template" if digest is None else f"in the model's folder, digest {digest[:12]}"


def _compared(architecture: str, own: bool) -> str:
    from ..model.proven import status

    found = status(architecture, "native" if own else "transformers")
    if found is None:
        return "not in the table of docs/models.md; the engine checks the additions by itself when it starts"
    return f"{found.status}{f': {found.reason}' if found.reason else ''}"


def _next(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """Commands, and what each does."""
    more = f" --model-impl {options.model_impl}" if options.model_impl else ""
    return (
        (f"{PROGRAM} {options.model} --engine{more}", "compare with transformers"),
        (f"trimtab-serve {options.model} --steering-profiles DIR{more}", "serve"),
    )


def _try(
    options: argparse.Namespace, written: look.Written, built: look.Built, asked: dict[str, Any], console: Console
) -> int:
    from . import trial

    dtype = options.dtype or built.dtype
    with tempfile.TemporaryDirectory() as scratch, console.status("transformers, then the engine; this takes minutes"):
        served, expected = trial.run(written.folder, written.identity, dtype, asked, Path(scratch), options.prompt)
    found = judge(served, expected, dtype)
    table = Table(title=f"log-probabilities of the next token, {dtype}; equal up to {found.bound:g}")
    for column in ("vector after layer", "vLLM from transformers", "effect of the vector"):
        table.add_column(column, justify="right")
    table.add_row("none", f"{found.unsteered:.1e}", "")
    for layer in found.layers:
        table.add_row(str(layer.number), f"{layer.difference:.1e}", f"{layer.effect:.1e}")
    console.print(table)
    colour = "green" if found.status == "proven" else "red"
    console.print(f"[{colour}]{found.status}:[/] {escape(found.reason)}")
    return 0 if found.status == "proven" else 1


def _vllm_arguments(options: argparse.Namespace) -> dict[str, Any]:
    given = dict(options.vllm)
    if options.model_impl:
        given["model_impl"] = options.model_impl
    return given


def _argument(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Say what trimtab can do with MODEL, a folder or a name in the Hub's cache. Nothing is downloaded.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--engine",
        action="store_true",
        help="start an engine, add a random vector after the first, a middle and the last layer, and compare with "
        "transformers; loads the weights twice, one after the other",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the model's own")
    parser.add_argument("--prompt", default=PROMPT, help="the text whose next token is compared")
    parser.add_argument("--model-impl", choices=("auto", "vllm", "transformers"), help="as `vllm serve` has it")
    parser.add_argument(
        "--vllm", type=_argument, action="append", default=[], metavar="NAME=VALUE", help="a further argument of vLLM"
    )
    return parser
