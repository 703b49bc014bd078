"""The tiny LLaVA before any training: its tokenizer, chat template, processor, batches and files."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from examples.tinyworld.ask import ASK, all_words
from examples.tinyworld.draw import draw
from examples.tinyworld.export import export, hub_name
from examples.tinyworld.llava import IMAGE_TOKENS, build_config, build_model, build_processor, build_tokenizer
from examples.tinyworld.pack import IGNORED, PREFIX, batch_at, pack
from examples.tinyworld.scene import sample_scene
from examples.tinyworld.train import Trainee


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    return build_processor(tokenizer)


def test_every_word_of_the_world_is_one_token_with_and_without_a_space(tokenizer: PreTrainedTokenizerFast) -> None:
    words = all_words()
    for word in words:
        assert len(tokenizer.encode(word)) == 1, word
        assert len(tokenizer.encode(f" {word}")) == 1, word
    assert {"yes", "no", "0", "1", "2", "3", "4", "white", "black", "man", "their", "sorry", "sure"} <= set(words)


def test_every_answer_is_one_token_a_word_and_starts_without_a_space(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng)
        for ask in ASK.values():
            question = ask(scene, rng)
            tokens = tokenizer.encode(f"<assistant>{question.answer}<eos>")
            parts = re.findall(r"\w+|[^\s\w]", question.answer)
            assert len(tokens) == len(parts) + 2
            assert tokenizer.decode(tokens[1:-1]) == question.answer
            assert tokenizer.decode(tokens[1]) == parts[0]


def test_no_token_is_added_at_the_beginning_of_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.bos_token_id is None
    assert tokenizer("is there a ball?")["input_ids"] == tokenizer.encode("is there a ball?", add_special_tokens=False)


@pytest.mark.parametrize("text", ["Hello, World! 12", "naïve 東京 🙂", "a\n  b\t c", "<user", ""])
def test_any_text_comes_back_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_template_takes_text_and_parts_and_puts_the_picture_first(processor: LlavaProcessor) -> None:
    def prompt(*turns: tuple[str, object]) -> str:
        messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in turns]
        return str(processor.apply_chat_template(messages, add_generation_prompt=True))

    text, picture = {"type": "text", "text": "who is there?"}, {"type": "image"}
    assert prompt(("user", "who is there?")) == "<user>who is there?<assistant>"
    assert prompt(("user", [text])) == prompt(("user", "who is there?"))
    assert prompt(("user", [picture, text])) == "<user><image>who is there?<assistant>"
    assert prompt(("user", [text, picture])) == prompt(("user", [picture, text]))
    assert prompt(("user", "a"), ("assistant", "b"), ("user", "c")) == "<user>a<assistant>b<eos><user>c<assistant>"


def test_a_trained_row_is_the_prompt_that_is_served(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = build_processor(tokenizer)
    scene = sample_scene(random.Random(1))
    questions = [ASK["number"](scene, random.Random(2)), ASK["other"](scene, random.Random(3))]
    batch = pack(tokenizer, [scene], [[questions]])
    content = [{"type": "image"}, {"type": "text", "text": questions[0].text}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": questions[0].answer},
        {"role": "user", "content": questions[1].text},
        {"role": "assistant", "content": questions[1].answer},
    ]
    served = processor(text=processor.apply_chat_template(messages), images=[draw(scene)], return_tensors="pt")
    assert torch.equal(served["input_ids"], batch.tokens)
    assert torch.allclose(served["pixel_values"], batch.pixels / 127.5 - 1, atol=1e-6)
    assert batch.tokens[0, PREFIX - IMAGE_TOKENS : PREFIX].unique().tolist() == [processor.image_token_id]


def test_targets_are_the_next_tokens_and_blocks_do_not_see_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = batch_at(tokenizer, "seed", rows=4, pictures=4)
    mask = batch.mask()[:, 0]
    row, at = (batch.targets != IGNORED).nonzero(as_tuple=True)
    assert torch.equal(batch.targets[row, at], batch.tokens[row, at + 1])
    assert torch.equal(batch.blocks[row, at], batch.blocks[row, at + 1])
    other = (batch.blocks[:, :, None] != batch.blocks[:, None, :]) & (batch.blocks[:, None, :] != 0)
    assert not mask[other].any()
    assert not mask.triu(1).any()
    assert mask[:, :, :PREFIX].tril().equal(torch.ones_like(mask[:, :, :PREFIX]).tril() & mask[:, :, :PREFIX])
    assert mask.any(-1).all()


def test_a_question_is_answered_alike_alone_and_packed(tokenizer: PreTrainedTokenizerFast) -> None:
    trainee = Trainee(tokenizer, seed=5).eval()
    scene = sample_scene(random.Random(1))
    rng = random.Random(2)
    questions = [ASK[kind](scene, rng) for kind in ASK]
    together = pack(tokenizer, [scene], [[[question] for question in questions]])
    with torch.inference_mode():
        packed = trainee.answer_loss(together, trainee.look(together))[0] * (together.targets != IGNORED).sum()
        alone = torch.zeros(())
        for question in questions:
            batch = pack(tokenizer, [scene], [[[question]]])
            alone += trainee.answer_loss(batch, trainee.look(batch))[0] * (batch.targets != IGNORED).sum()
    assert packed.item() == pytest.approx(alone.item(), rel=1e-4)


def test_an_exported_folder_has_the_published_names_and_gives_the_same_logits(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    model = build_model(build_config(tokenizer), seed=3).eval()
    scene = sample_scene(random.Random(4))
    export(model, tokenizer, tmp_path / "model")
    processor = LlavaProcessor.from_pretrained(tmp_path / "model")
    text = "<user><image>who is there?<assistant>"
    inputs = processor(text=text, images=[draw(scene)], return_tensors="pt")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    with torch.inference_mode():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert any(name.startswith("vision_tower.vision_model.embeddings") for name in names)
    assert not any(name.startswith(("vision_tower.embeddings", "vision_tower.encoder")) for name in names)
    assert sum(path.stat().st_size for path in (tmp_path / "model").iterdir()) <= 12_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_renaming_twice_is_renaming_once() -> None:
    name = hub_name("vision_tower.embeddings.class_embedding")
    assert name == "vision_tower.vision_model.embeddings.class_embedding"
    assert hub_name(name) == name
    assert hub_name("language_model.model.norm.weight") == "language_model.model.norm.weight"
