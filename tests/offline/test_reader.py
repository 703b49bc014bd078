"""The states are the residual stream: checked against a Llama written by hand, and against the model alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from tests.offline.worlds import LAYERS, TEMPLATE, questions
from trimtab.offline.errors import ModelError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question, Reading, decoder_blocks
from trimtab.vectors import ModelIdentity

EVERY = range(LAYERS)


def hand_written_stream(reader: Reader, tokens: list[int]) -> list[torch.Tensor]:
    """The residual stream of a Llama after each block, [T, D], from its weights and Touvron et al.'s formulas."""
    model = reader.model.model
    heads = model.config.num_attention_heads
    x = model.embed_tokens.weight[torch.tensor(tokens)]
    length, size = x.shape
    half = size // heads // 2
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    cos, sin = angle.cos(), angle.sin()

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps) * weight

    def turned(x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    stream = []
    for block in model.layers:
        h = norm(x, block.input_layernorm.weight)
        attention = block.self_attn
        q, k, v = (
            (h @ part.weight.T).view(length, heads, -1).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scores = turned(q) @ turned(k).transpose(1, 2) / (2 * half) ** 0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        x = x + (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, size) @ attention.o_proj.weight.T
        h = norm(x, block.post_attention_layernorm.weight)
        mlp = block.mlp
        gate = torch.nn.functional.silu(h @ mlp.gate_proj.weight.T)
        x = x + (gate * (h @ mlp.up_proj.weight.T)) @ mlp.down_proj.weight.T
        stream.append(x)
    return stream


@torch.no_grad()
def test_rows_are_the_residual_stream_of_a_llama_written_by_hand(llama_reader: Reader) -> None:
    for question, reading in zip(questions(6, False), llama_reader.read(questions(6, False), EVERY, 8), strict=True):
        prompt = llama_reader.encode([question])["input_ids"][0].tolist()
        stream = hand_written_stream(llama_reader, [*prompt, *reading.answer.tokens])
        for layer in EVERY:
            expected = stream[layer][len(prompt) - 1 :].numpy()
            np.testing.assert_allclose(reading.stream[layer], expected, atol=1e-4)


@torch.no_grad()
def test_states_of_a_picture_equal_one_forward_over_prompt_and_answer(llava_reader: Reader) -> None:
    question = questions(3, True)[2]
    (reading,) = llava_reader.read([question], EVERY, 8)
    assert reading.answer.tokens
    batch = llava_reader.encode([question])
    prompt = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([reading.answer.tokens])], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    states = llava_reader.model(**batch, output_hidden_states=True).hidden_states
    for layer in EVERY[:-1]:
        expected = states[layer + 1][0, prompt - 1 :].numpy()
        np.testing.assert_allclose(reading.stream[layer], expected, atol=1e-4)
    # transformers' last entry is normed already; ours is what goes into that norm.
    last = torch.from_numpy(reading.stream[LAYERS - 1])
    normed = llava_reader.model.get_decoder().norm(last)
    np.testing.assert_allclose(normed.numpy(), states[-1][0, prompt - 1 :].numpy(), atol=1e-4)
    assert not np.allclose(last, normed, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("pictured", [False, True])
def test_row_t_predicts_token_t_plus_one(llama_reader: Reader, llava_reader: Reader, pictured: bool) -> None:
    reader = llava_reader if pictured else llama_reader
    readings = reader.read(questions(8, pictured), [LAYERS - 1], 8)
    assert len({reading.answer for reading in readings}) > 4  # otherwise the law would say little
    for reading in readings:
        normed = reader.model.get_decoder().norm(torch.from_numpy(reading.stream[LAYERS - 1]))
        predicted = reader.model.lm_head(normed).argmax(-1).tolist()
        assert tuple(predicted[: len(reading.answer.tokens)]) == reading.answer.tokens
        assert len(predicted) == len(reading.answer.tokens) + 1


@pytest.mark.parametrize("pictured", [False, True])
def test_a_batched_row_equals_the_row_computed_alone(
    llama_reader: Reader, llava_reader: Reader, pictured: bool
) -> None:
    reader = llava_reader if pictured else llama_reader
    asked = questions(10, pictured)
    together = reader.read(asked, EVERY, 8)
    assert len({len(reading.answer.tokens) for reading in together}) > 2  # the batch has answers of many lengths
    for question, reading in zip(asked, together, strict=True):
        (alone,) = reader.read([question], EVERY, 8)
        assert same(alone, reading, 1e-4)


def test_several_layers_in_one_pass_equal_one_by_one(llava_reader: Reader) -> None:
    asked = questions(4, True)
    together = llava_reader.read(asked, EVERY, 8)
    for layer in EVERY:
        for reading, alone in zip(together, llava_reader.read(asked, [layer], 8), strict=True):
            assert list(alone.stream) == [layer]
            assert np.array_equal(alone.stream[layer], reading.stream[layer])


def test_the_answer_is_the_models_own_greedy_one_and_is_cut_where_asked(llava_reader: Reader) -> None:
    asked = questions(6, True)
    whole, cut = llava_reader.read(asked, [0], 12), llava_reader.read(asked, [0], 2)
    for question, long, short in zip(asked, whole, cut, strict=True):
        batch = llava_reader.encode([question])
        output = llava_reader.model.generate(**batch, max_new_tokens=12, do_sample=False)
        expected = [token for token in output[0, batch["input_ids"].shape[1] :].tolist() if token != 1]
        assert list(long.answer.tokens) == expected
        assert short.answer.tokens == long.answer.tokens[:2]
        assert len(short.stream[0]) == len(short.answer.tokens) + 1


def test_a_sample_that_is_satisfied_stops_and_leaves_its_batchmates_alone(llama_reader: Reader) -> None:
    asked = questions(8, False)
    whole = llama_reader.read(asked, [1], 8)
    first_words = llama_reader.read(asked, [1], 8, satisfied=lambda text: len(text.split()) > 1)
    for long, short in zip(whole, first_words, strict=True):
        assert long.answer.tokens[: len(short.answer.tokens)] == short.answer.tokens
        assert short.answer.text.split()[:1] == long.answer.text.split()[:1]
        assert np.allclose(short.stream[1], long.stream[1][: len(short.stream[1])], atol=1e-4)
    assert sum(len(r.answer.tokens) for r in first_words) < sum(len(r.answer.tokens) for r in whole)


def test_hooks_are_gone_after_a_reading(llama_reader: Reader) -> None:
    llama_reader.read(questions(1, False), EVERY, 2)
    assert not any(block._forward_hooks for block in llama_reader.blocks)


def test_the_prompt_is_the_chat_templates_and_nothing_more(llava_reader: Reader) -> None:
    (question,) = questions(1, True)
    ids = llava_reader.encode([question])["input_ids"][0].tolist()
    assert llava_reader.tokenizer.decode(ids) == "<user>" + "<image>" * 4 + "yes<assistant>"


def test_a_reader_knows_whose_states_it_reads(llava: Path, llava_reader: Reader) -> None:
    assert llava_reader.identity == ModelIdentity.of(llava)
    assert len(llava_reader.blocks) == llava_reader.identity.num_layers == LAYERS


@pytest.mark.parametrize("layers", [[], [-1], [LAYERS], [0, 99]])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(llama_reader: Reader, layers: list[int]) -> None:
    with pytest.raises(SettingError, match=f"0 to {LAYERS - 1}"):
        llama_reader.read(questions(1, False), layers, 1)


def test_a_model_that_reads_text_only_refuses_a_picture(llama_reader: Reader) -> None:
    with pytest.raises(SettingError, match="text only"):
        llama_reader.read(questions(1, True), [0], 1)


def test_a_model_that_sees_also_answers_about_nothing(llava_reader: Reader) -> None:
    (reading,) = llava_reader.read([Question("what is it")], [0], 4)
    assert reading.answer.tokens


def test_no_model_folder_and_no_chat_template_are_sentences(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        Reader(tmp_path / "absent")
    for file in llama.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="no chat template"):
        Reader(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    assert Reader(tmp_path).prompt(Question("yes")) == "<user>yes<assistant>"


def test_what_is_no_decoder_is_refused() -> None:
    t5 = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1, vocab_size=16)
    with pytest.raises(ModelError, match="encoder-decoder"):
        decoder_blocks(T5ForConditionalGeneration(t5))
    bert = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16, is_decoder=True
    )
    with pytest.raises(ModelError, match="no decoder blocks"):
        decoder_blocks(BertLMHeadModel(bert))


def same(a: Reading, b: Reading, tolerance: float) -> bool:
    return a.answer == b.answer and all(np.allclose(a.stream[x], b.stream[x], atol=tolerance, rtol=0) for x in a.stream)
