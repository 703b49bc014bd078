"""Tries to break what an operator relies on, part by part: `make reliability`. Writes out/reliability.json.

Each module of `parts` is one part. A part that found nothing wrong is not run again until its code, or that of trimtab,
has changed; `--part NAME` runs some alone, `--share 0.1` a tenth of each. SIGTERM ends the run and all that it started.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from tests.engine.engine import ROOT
from tests.reliability import parts, served
from tests.reliability.kept import Kept, machine

NAMES = sorted(module.name for module in pkgutil.iter_modules(parts.__path__))
WRONG = "wrong"
"""The key of a part's result under which it lists, in sentences, what did not hold."""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    out = Path(options.out)
    kept = Kept(out.with_suffix(""), options.share)
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
            for name in options.part or NAMES:
                found = None if options.again else kept.read(name)
                if found is None:
                    print(f"{name}: runs", file=sys.stderr)
                    found = _run(name, Path(work), options.share)
                    kept.write(name, found)
                results[name] = found
                print(f"{name}: {json.dumps(found)}", file=sys.stderr)
    finally:
        served.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(out.read_text()) if options.part and out.exists() else {}
    out.write_text(json.dumps({**before, "machine": machine(), **results}, indent=2) + "\n")
    wrong = [f"{name}: {sentence}" for name, found in results.items() for sentence in found.get(WRONG, ())]
    print("\n".join(wrong) or f"nothing was wrong; see {out}", file=sys.stderr)
    return 1 if wrong else 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End the servers, so that no thread waits for an answer, and then this run."""
    signal.signal(number, signal.SIG_IGN)  # once
    for started in psutil.Process().children():
        started.terminate()
    sys.exit(128 + number)


def _run(name: str, work: Path, share: float) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = import_module(f"tests.reliability.parts.{name}").run(work, share)
    except Exception as error:  # the other parts run all the same
        traceback.print_exc()
        found = {WRONG: [f"it did not end: {type(error).__name__}: {error}"]}
    return {**found, "share": share, "seconds": round(time.monotonic() - began, 1)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.run", description=__doc__)
    parser.add_argument("--part", action="append", choices=NAMES, help="run this part only; may be repeated")
    parser.add_argument("--share", type=float, default=1.0, help="how much of each part, above 0 and at most 1")
    parser.add_argument("--again", action="store_true", help="also what was found in order before")
    parser.add_argument("--out", default=str(ROOT / "out" / "reliability.json"))
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error("--share is above 0 and at most 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
