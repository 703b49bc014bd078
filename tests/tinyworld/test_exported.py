"""The weights in the repository: what they weigh, what they answer, and that they answer from the picture."""

import random
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from examples.tinyworld.ask import ASK
from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.draw import draw
from examples.tinyworld.export import MODEL
from examples.tinyworld.measure import answer_locally, figures
from examples.tinyworld.scene import sample_split


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tinyworld") / "test"
    write_split(folder, "test", scenes=30, seed=17)
    return folder


def test_the_model_is_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 12_000_000


def test_the_model_answers_new_scenes_rightly_and_from_the_picture(split: Path) -> None:
    samples = read_split(split)
    answers = answer_locally(MODEL, split, samples)
    rates = figures(samples, answers)
    for name in ("yes/no", "number", "other", "gendered people"):
        assert rates[name].rate > 0.9, (name, rates[name])
    vqa = [at for at, sample in enumerate(samples) if sample.type in ("yes/no", "number", "other")]
    other_picture = [samples[vqa[at - 90]] for at in range(len(vqa))]
    asked = [
        type(sample)(sample.id, other.image, sample.question, sample.answer, sample.type)
        for sample, other in zip((samples[at] for at in vqa), other_picture, strict=True)
    ]
    blind = figures(asked, answer_locally(MODEL, split, asked))
    assert blind["yes/no"].rate < 0.7
    assert blind["number"].rate < 0.5
    assert blind["other"].rate < 0.5


def test_later_turns_of_a_long_conversation_are_answered_as_well() -> None:
    processor = LlavaProcessor.from_pretrained(MODEL)
    model = LlavaForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    rng = random.Random(3)
    right = turns = 0
    for _ in range(4):
        scene = sample_split(rng, "test")
        prompt = "<user><image>"
        for kind in ("other", "number", "yes/no", "other", "number") * 4:
            question = ASK[kind](scene, rng)
            prompt += f"{question.text}<assistant>"
            inputs = processor(text=prompt, images=[draw(scene)], return_tensors="pt")
            with torch.inference_mode():
                tokens = model.generate(**inputs, max_new_tokens=40, do_sample=False)
            said = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            right += said == question.answer
            turns += 1
            prompt += f"{question.answer}<eos><user>"
        assert inputs["input_ids"].shape[1] > 250
    assert right / turns > 0.85
