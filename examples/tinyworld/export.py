"""Turns a checkpoint into a folder that vLLM and transformers both load: `python -m examples.tinyworld.export`.

Weights are bfloat16 safetensors under the Hub's names: transformers 5 saves a CLIP tower as `vision_tower.embeddings`,
vLLM and every published LLaVA say `vision_tower.vision_model.embeddings`, and transformers loads both.
"""

import argparse
import copy
import os
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from examples.tinyworld.llava import build_processor, load_tokenizer
from examples.tinyworld.train import OUT, Trainee, restore

MODEL = Path(__file__).parent / "model"
WEIGHTS = "model.safetensors"


def hub_name(name: str) -> str:
    """The published name of a weight that transformers 5 saves."""
    own, hub = "vision_tower.", "vision_tower.vision_model."
    return name if hub in name else name.replace(own, hub)


def export(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the model beside `folder` first and then moves file by file, the weights last: a reader never sees half a
    file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as part:
        copy.deepcopy(model).bfloat16().save_pretrained(part)
        build_processor(tokenizer).save_pretrained(part)
        weights = {hub_name(name): tensor for name, tensor in load_file(Path(part, WEIGHTS)).items()}
        save_file(weights, Path(part, WEIGHTS), metadata={"format": "pt"})
        for name in sorted(os.listdir(part), key=lambda name: name == WEIGHTS):
            Path(part, name).chmod(0o644)
            os.replace(Path(part, name), folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports the checkpoint of a training as a servable folder.")
    parser.add_argument("--train", type=Path, default=OUT, help="folder of the training")
    parser.add_argument("--to", type=Path, default=MODEL, help="folder of the exported model")
    asked = parser.parse_args()
    tokenizer = load_tokenizer(asked.train)
    trainee = Trainee(tokenizer)
    step = restore(asked.train, trainee)
    export(trainee.llava, tokenizer, asked.to)
    size = sum(path.stat().st_size for path in asked.to.iterdir())
    print(f"step {step}: {asked.to}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
