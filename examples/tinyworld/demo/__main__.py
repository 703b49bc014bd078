"""`python -m examples.tinyworld.demo --out out`: builds, serves, measures, prints, writes, stops."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from examples.tinyworld.demo import before_after, gender, profiles, server, show, throughput, vqa
from examples.tinyworld.demo.client import Client
from examples.tinyworld.export import MODEL
from examples.tinyworld.precision import served_dtype
from trimtab.offline.errors import EndpointError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.tinyworld.demo", description="Shows steering at work.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for data, profiles, log and figures")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the tiny LLaVA")
    parser.add_argument("--build-only", action="store_true", help="build the profiles and stop")
    parser.add_argument("--dtype", default=served_dtype(), help="of the model; by default by processor")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    show.step(1, "profiles, from the model's own activations")
    registry = profiles.build(asked.model, asked.out)
    if asked.build_only:
        print(f"profiles: {registry}")
        return
    try:
        log = asked.out / "server.log"
        show.step(2, f"vLLM starts and compiles (log: {log})")
        with (
            server.serving(asked.model, registry, log, asked.dtype) as served,
            asyncio.Runner() as runner,
        ):
            figures = _measure(Client(served.url(), runner), asked.out / "data" / "test", asked.model)
    except EndpointError as error:
        raise SystemExit(str(error)) from error
    target = asked.out / "demo.json"
    target.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"figures: {target}")


def _measure(client: Client, test: Path, model: Path) -> dict[str, Any]:
    show.step(3, "answers before and after")
    show.answers(before_after.examples(client, test))
    show.step(4, "questions of the test split, each asked of every row of a table")
    rows = vqa.table(client, test, model)
    show.vqa(rows, vqa.QUESTIONS)
    captions = gender.conversions(client, test)
    show.gender(captions)
    speed = throughput.throughput(client, test)
    show.throughput(speed)
    # Strengths are swept by `make study`. The key stays for those who read it.
    return {"vqa": rows, "vqa_dev_curves": {}, "gender": captions, "throughput": speed}


if __name__ == "__main__":
    main()
