"""What steering costs on a GPU, at the shape of a 7B model: `python bench/gpu.py [--shape tiny]`.

A Llama of that shape with random weights is written once, and two engines serve it on the same GPU, one plain and one
with 256 profiles armed; compiled, with CUDA graphs. They take turns; prompts are tokens and answers have a fixed
length, so random weights do as well as real ones. `--shape tiny` is for a machine without a GPU: it shows that this
runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench import profiles
from bench.decoder import Shape
from bench.machine import machine
from bench.pairs import Run, alternate, estimate, ratios

BATCHES = (1, 8, 64, 256)
TOKENS = 64


SHAPES = {"7b": Shape(4096, 11008, 32, 32, 32000), "tiny": Shape(64, 128, 2, 2, 512)}


def write_model(folder: Path, shape: Shape) -> Path:
    """Random weights in bfloat16, a file a layer."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    d, wide = shape.hidden_size, shape.intermediate_size

    def matrix(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.bfloat16).normal_(std=0.02)

    ends = {"model.embed_tokens": matrix(shape.vocab_size, d), "lm_head": matrix(shape.vocab_size, d)}

    def norm() -> torch.Tensor:
        return torch.ones(d, dtype=torch.bfloat16)

    save_file({f"{k}.weight": v for k, v in {**ends, "model.norm": norm()}.items()}, folder / "ends.safetensors")
    for layer in range(shape.num_hidden_layers):
        square = {f"self_attn.{name}_proj": matrix(d, d) for name in "qkvo"}
        mlp = {"mlp.gate_proj": matrix(wide, d), "mlp.up_proj": matrix(wide, d), "mlp.down_proj": matrix(d, wide)}
        norms = {"input_layernorm": norm(), "post_attention_layernorm": norm()}
        named = {f"model.layers.{layer}.{k}.weight": v for k, v in {**square, **mlp, **norms}.items()}
        save_file(named, folder / f"layer-{layer}.safetensors")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", **asdict(shape)}
    (folder / "config.json").write_text(json.dumps(config))  # last: where it is, all of it is
    return folder


def serve(requests: Connection, model: str, profiles: str | None) -> None:
    """The life of an engine's process: runs what it is asked to, and answers with tokens a second."""
    os.environ["VLLM_PLUGINS"] = "trimtab" if profiles else ""  # a plain engine is vLLM as it comes
    from vllm import LLM, SamplingParams

    from trimtab.plugin import engine_args

    llm = LLM(
        model,
        skip_tokenizer_init=True,
        max_model_len=512,
        max_num_seqs=max(BATCHES),
        gpu_memory_utilization=0.4,  # both engines lie on one GPU
        enable_prefix_caching=False,
        **(engine_args(profiles, model=model) if profiles else {}),
    )
    requests.send(None)
    while (asked := requests.recv()) is not None:
        steerings, tokens = asked
        params = [
            SamplingParams(
                temperature=0,
                max_tokens=tokens,
                ignore_eos=True,
                detokenize=False,
                extra_args=None if steering is None else {"steering": steering},
            )
            for steering in steerings
        ]
        prompts: Any = [{"prompt_token_ids": [1 + (7 * n + k) % 400 for k in range(32)]} for n in range(len(params))]
        started = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        requests.send(len(params) * tokens / (time.perf_counter() - started))


class Engine:
    """An engine in a process of its own."""

    def __init__(self, model: Path, profiles: Path | None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._requests, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, str(model), str(profiles) if profiles else None))
        self._process.start()
        theirs.close()  # so that an engine that dies ends our wait for it
        self._requests.recv()

    def run(self, steerings: Sequence[Any], tokens: int) -> Run[float]:
        """One turn, which is the whole run: tokens a second."""
        self._requests.send((steerings, tokens))
        return float(self._requests.recv())
        yield

    def close(self) -> None:
        self._requests.send(None)
        self._process.join(60)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/gpu.py", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="the model (13 GB at 7b) and the profiles")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    asked = parser.parse_args()
    console = Console()
    if asked.shape != "tiny" and not torch.cuda.is_available():
        console.print("no GPU here: --shape tiny shows that this runs, and its figures mean nothing")
        sys.exit(1)
    model = write_model((asked.work / asked.shape).resolve(), SHAPES[asked.shape])
    folder = profiles.write_many((asked.work / f"{asked.shape}-profiles").resolve(), model)
    console.print("starting two engines")
    plain, armed = Engine(model, None), Engine(model, folder)
    sides: dict[str, tuple[Engine, Callable[[int], list[Any]]]] = {
        "aa": (plain, lambda n: [None] * n),
        "idle": (armed, lambda n: [None] * n),
        "coarse": (armed, lambda n: [profiles.COARSE] * n),
        "mixed": (armed, lambda n: [profiles.mixed(32)[number % 32] for number in range(n)]),
    }
    rows = []
    with Progress(console=console) as progress:
        for name, batch in progress.track(list(itertools.product(sides, BATCHES)), description="measuring"):
            engine, steerings = sides[name]
            pairs = list(
                alternate(
                    functools.partial(plain.run, [None] * batch, TOKENS),
                    functools.partial(engine.run, steerings(batch), TOKENS),
                    1 + asked.pairs,
                )
            )[1:]
            rows.append({"case": name, "batch": batch, **asdict(estimate(ratios(pairs, float)))})
    plain.close()
    armed.close()
    table = Table("case", "batch", "armed / plain", "95 %", title="tokens a second")
    for row in rows:
        table.add_row(row["case"], str(row["batch"]), f"{row['median']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
    console.print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"shape": asked.shape, "machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
