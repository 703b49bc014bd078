"""Trains the tiny LLaVA from scratch: `python -m examples.tinyworld.train`, resumable at any time.

First the vision tower alone learns what each cell of a picture holds, with heads that are thrown away; then all of the
model learns to answer, with the cells kept as a small auxiliary loss. Weights are float32 under bfloat16 autocast.
Checkpoints are written every few minutes and when the time is up; the next start continues from the last one and ends
at the same weights as a run that was never stopped. `export.py` turns a checkpoint into a servable folder.
"""

import argparse
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from examples.tinyworld.layout import GRID
from examples.tinyworld.llava import IMAGE_TOKENS, build_config, build_model, load_tokenizer, vision_config
from examples.tinyworld.pack import CELL_CLASSES, IGNORED, Batch, batch_at

OUT = Path("out/train")
CHECKPOINT = "checkpoint.pt"
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "500000000",
}
"""glibc gives memory back to the system at every step by default; keeping it makes a step several times faster."""
SAVE_EVERY = 150
"""Seconds between checkpoints."""


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, next to the code."""

    steps: int = 3300
    vision_steps: int = 500
    rows: int = 16
    pictures: int = 48
    vision_pictures: int = 64
    seed: int = 0
    rate: float = 1.2e-3
    last_rate: float = 5e-5
    warm_up: int = 150
    decay: float = 0.02
    cells_weight: float = 0.5

    def rate_at(self, step: int) -> float:
        """Learning rate: warm-up and hold for the vision tower alone; warm-up and cosine for all of the model."""
        if step < self.vision_steps:
            return self.rate * min(1.0, (step + 1) / self.warm_up)
        step, steps = step - self.vision_steps, self.steps - self.vision_steps
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, steps - self.warm_up)
        return self.last_rate + (self.rate - self.last_rate) * (1 + math.cos(math.pi * min(1.0, done))) / 2


class CellHeads(nn.Module):
    """Reads the classes of each cell from the mean of its patches; counts, hard to see, weigh more."""

    WEIGHTS: ClassVar = {"kind": 1.0, "color": 1.0, "count": 3.0, "place": 1.0}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for classes in CELL_CLASSES.values())

    def loss(self, patches: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Weighted cross-entropy; patches [P, IMAGE_TOKENS, width], cells [P, GRID², 4]."""
        side = math.isqrt(IMAGE_TOKENS) // GRID
        grid = patches.unflatten(1, (GRID, side, GRID, side)).mean((2, 4)).flatten(1, 2)
        grid = self.norm(grid).flatten(0, 1)
        loss = torch.zeros(())
        for head, classes, name in zip(self.heads, cells.flatten(0, 1).T, CELL_CLASSES, strict=True):
            loss = loss + self.WEIGHTS[name] * functional.cross_entropy(head(grid), classes)
        return loss


class Trainee(nn.Module):
    """The model with its throw-away heads."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> None:
        super().__init__()
        self.llava: LlavaForConditionalGeneration = build_model(build_config(tokenizer), seed)
        self.cells = CellHeads(vision_config(self.llava.config).hidden_size)

    def look(self, batch: Batch) -> torch.Tensor:
        """The vision tower's patches [P, IMAGE_TOKENS, width], as the decoder's projector reads them."""
        pixels = batch.pixels.float() / 127.5 - 1
        seen = self.llava.model.vision_tower(pixel_values=pixels, output_hidden_states=True)
        patches: torch.Tensor = seen.hidden_states[-1][:, 1:]
        return patches

    def answer_loss(self, batch: Batch, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of the answers' tokens, and the share of them that is predicted right."""
        inner = self.llava.model
        words = inner.get_input_embeddings()(batch.tokens)
        pictures = inner.multi_modal_projector(patches[: len(words)]).to(words.dtype)
        inputs = torch.cat([words[:, :1], pictures, words[:, 1 + IMAGE_TOKENS :]], dim=1)
        stream = inner.language_model(
            inputs_embeds=inputs, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        learned = batch.targets != IGNORED
        logits, targets = self.llava.lm_head(stream[learned]).float(), batch.targets[learned]
        return functional.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean()


def train(
    out: Path, recipe: Recipe, minutes: float = math.inf, stop_after: int | None = None, workers: int = 1, rank: int = 0
) -> Trainee:
    """Trains to the recipe's end, from the checkpoint in `out` if there is one; stops early when the time is up.

    With several workers this is one of them, in a process group that its caller has started.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(out)
    trainee = Trainee(tokenizer, recipe.seed)
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.decay)
    first = restore(out, trainee, optimizer)
    last = min(recipe.steps, stop_after if stop_after is not None else recipe.steps)
    saved = time.monotonic()
    end = saved + minutes * 60
    with tqdm(initial=first, total=recipe.steps, mininterval=5, ncols=100, disable=rank > 0) as bar:
        for step in range(first, last):
            sizes = (1, recipe.vision_pictures) if step < recipe.vision_steps else (recipe.rows, recipe.pictures)
            rows, pictures = (math.ceil(size / workers) for size in sizes)
            batch = batch_at(tokenizer, f"{recipe.seed}|{step}|{rank}", rows, pictures)
            notes = _step(trainee, optimizer, recipe, step, batch, workers)
            bar.update()
            if (step + 1) % 50 == 0 and rank == 0:
                bar.set_postfix_str(notes)
                with (out / "log.txt").open("a") as log:
                    log.write(f"{step + 1} {notes}\n")
            late = _any(time.monotonic() >= end, workers)
            if rank == 0 and (late or step + 1 == last or time.monotonic() - saved > SAVE_EVERY):
                save(out, trainee, optimizer, step + 1)
                saved = time.monotonic()
            if late:
                break
    return trainee


def _step(
    trainee: Trainee, optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, batch: Batch, workers: int
) -> str:
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate_at(step)
    with torch.autocast("cpu", torch.bfloat16):
        patches = trainee.look(batch)
        loss = cells = trainee.cells.loss(patches.float(), batch.cells)
        notes = f"cells {cells.item():.4f}"
        if step >= recipe.vision_steps:
            answers, right = trainee.answer_loss(batch, patches)
            loss = answers + recipe.cells_weight * cells
            notes += f" answers {answers.item():.4f} right {right.item():.3f}"
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [p.grad for p in trainee.parameters() if p.grad is not None]
    if workers > 1:
        _average(gradients, workers)
    nn.utils.clip_grad_norm_([p for p in trainee.parameters() if p.grad is not None], 1.0)
    optimizer.step()
    return notes


def _average(gradients: list[torch.Tensor], workers: int) -> None:
    flat = nn.utils.parameters_to_vector(gradients)
    distributed.all_reduce(flat)
    nn.utils.vector_to_parameters(flat / workers, gradients)


def _any(flag: bool, workers: int) -> bool:
    """Whether the flag is up in any worker: all of them must leave the loop at one step."""
    flags = torch.tensor([float(flag)])
    if workers > 1:
        distributed.all_reduce(flags)
    return bool(flags.item())


def _worker(rank: int, out: Path, recipe: Recipe, minutes: float, workers: int) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{(out / 'rendezvous').resolve()}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)
    train(out, recipe, minutes, workers=workers, rank=rank)
    distributed.destroy_process_group()


def save(out: Path, trainee: Trainee, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes the checkpoint under another name first, so that a kill leaves the last one whole."""
    state = {"step": step, "trainee": trainee.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, out / f"{CHECKPOINT}.part")
    os.replace(out / f"{CHECKPOINT}.part", out / CHECKPOINT)


def restore(out: Path, trainee: Trainee, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Loads the checkpoint in `out` and returns its step; 0 when there is none."""
    if not (out / CHECKPOINT).exists():
        return 0
    state = torch.load(out / CHECKPOINT, weights_only=True)
    trainee.load_state_dict(state["trainee"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the tiny LLaVA; continues from the last checkpoint.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the checkpoint and the log")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of the whole training")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop and save after so many minutes")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each, that share a step's rows")
    asked = parser.parse_args()
    if not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        os.execv(sys.executable, [sys.executable, "-m", "examples.tinyworld.train", *sys.argv[1:]])
    asked.out.mkdir(parents=True, exist_ok=True)
    load_tokenizer(asked.out)
    (asked.out / "rendezvous").unlink(missing_ok=True)
    recipe = Recipe(steps=asked.steps, seed=asked.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an orderly exit ends the workers as well
    arguments = asked.out, recipe, asked.minutes, asked.workers
    spawn(_worker, arguments, nprocs=asked.workers, daemon=True)


if __name__ == "__main__":
    main()
