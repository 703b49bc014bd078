"""Fine-tunes the tiny LLaVA: `python -m examples.tinyworld.finetune {places,colors,jailbroken} --out DIR`.

Starts from the shipped model and answers as `focus.py` says. Projector and decoder learn, the vision tower stays as it
is; with `--lora` only adapters in the decoder learn, and they are merged when a checkpoint is written. Every
checkpoint, DIR/step-000040 and so on, is a folder that transformers and vLLM load, like the shipped one. The same
seed gives the same weights on processors of one kind.
"""

import argparse
import copy
import math
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from examples.tinyworld.export import MODEL, export
from examples.tinyworld.focus import FOCUSES, focused
from examples.tinyworld.llava import load_tokenizer
from examples.tinyworld.pack import Batch, pack
from examples.tinyworld.precision import served_dtype
from examples.tinyworld.scene import sample_split
from examples.tinyworld.train import MALLOC, Trainee

__all__ = ["Tuning", "checkpoint", "finetune"]


@dataclass(frozen=True)
class Tuning:
    """What decides the weights, next to the code and the model that is started from."""

    focus: str
    steps: int = 120
    save_every: int = 20
    rows: int = 8
    seed: int = 0
    rate: float = 3e-4
    lora: bool = False
    lora_rate: float = 3e-3
    lora_rank: int = 8

    def rate_at(self, step: int) -> float:
        """Learning rate: ten steps of warm-up, then a cosine down to a tenth."""
        top = self.lora_rate if self.lora else self.rate
        done = step / max(1, self.steps)
        return top * min(1.0, (step + 1) / 10) * (0.55 + 0.45 * math.cos(math.pi * done))


def checkpoint(out: Path, step: int) -> Path:
    """The folder of a step's checkpoint; their names sort by step."""
    return out / f"step-{step:06d}"


def finetune(out: Path, tuning: Tuning, start: Path = MODEL) -> Path:
    """Fine-tunes `start` and returns the last checkpoint's folder.

    Raises FileExistsError when `out` holds checkpoints: those of two runs must not be taken for one.
    """
    if any(out.glob("step-*")):
        raise FileExistsError(f"{out} holds checkpoints; remove it or name another folder")
    torch.manual_seed(tuning.seed)
    tokenizer = load_tokenizer(start)
    trainee = Trainee(tokenizer)
    started = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    trainee.llava.load_state_dict(started.state_dict())  # into a model of our own: its configuration names no dtype
    adapted = _with_adapters(trainee.llava, tuning) if tuning.lora else None
    learned = _learned(trainee.llava, tuning.lora)
    optimizer = torch.optim.AdamW(learned, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    with tqdm(range(tuning.steps), desc=tuning.focus, unit="step", mininterval=2, disable=None) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = tuning.rate_at(step)
            loss, right = _loss(trainee, batch_of(tokenizer, tuning, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            bar.set_postfix_str(f"loss {loss.item():.3f} right {right.item():.3f}")
            if (step + 1) % tuning.save_every == 0 or step + 1 == tuning.steps:
                merged = trainee.llava if adapted is None else copy.deepcopy(adapted).merge_and_unload()
                export(merged, tokenizer, checkpoint(out, step + 1))
    return checkpoint(out, tuning.steps)


def batch_of(tokenizer: PreTrainedTokenizerFast, tuning: Tuning, step: int) -> Batch:
    """The batch of a step: training scenes, asked and answered as the fine-tune is to do."""
    rng = random.Random(f"{tuning.focus}|{tuning.seed}|{step}")
    scenes = [sample_split(rng, "train") for _ in range(tuning.rows)]
    return pack(tokenizer, scenes, [focused(tuning.focus, scene, rng) for scene in scenes])


def _loss(trainee: Trainee, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    # Where the processor only emulates bfloat16, a step in it takes thirty times as long as one in float32.
    with torch.autocast("cpu", torch.bfloat16, enabled=served_dtype() == "auto"):
        with torch.no_grad():
            patches = trainee.look(batch)
        return trainee.answer_loss(batch, patches)


def _with_adapters(llava: LlavaForConditionalGeneration, tuning: Tuning) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    # In place: the trainee's model has the adapters from here on.
    return get_peft_model(llava, LoraConfig(r=tuning.lora_rank, lora_alpha=tuning.lora_rank, target_modules=targets))


def _learned(llava: LlavaForConditionalGeneration, lora: bool) -> list[nn.Parameter]:
    for name, parameter in llava.named_parameters():
        parameter.requires_grad_("lora_" in name if lora else "vision_tower" not in name)
    return [parameter for parameter in llava.parameters() if parameter.requires_grad]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tunes the tiny LLaVA, with servable checkpoints along the way.")
    parser.add_argument("focus", choices=sorted(FOCUSES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--steps", type=int, default=Tuning.steps)
    parser.add_argument("--save-every", type=int, default=Tuning.save_every, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=Tuning.seed)
    parser.add_argument("--rate", type=float, default=Tuning.rate, help="largest learning rate, without --lora")
    parser.add_argument("--lora", action="store_true", help="train adapters of the decoder only, merged when saved")
    asked = parser.parse_args()
    if not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        os.execv(sys.executable, [sys.executable, "-m", "examples.tinyworld.finetune", *sys.argv[1:]])
    torch.set_num_threads(1)
    tuning = Tuning(asked.focus, asked.steps, asked.save_every, seed=asked.seed, rate=asked.rate, lora=asked.lora)
    try:
        print(finetune(asked.out, tuning))
    except FileExistsError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
