"""Words and pictures of concepts: on the model that ships with the project, and on random ones of other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.offline.test_other_models import MODELS
from tests.offline.test_streamed import cut
from tests.offline.worlds import questions, save_llama, save_llava, states_of, tokenizer
from trimtab.offline.concepts import class_means, kmeans, top_words, word_overlap
from trimtab.offline.concepts.factors import simple
from trimtab.offline.concepts.grounding import unembed
from trimtab.offline.concepts.pictures import thumbnails, top_samples
from trimtab.offline.errors import ModelError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.models.vocabulary import STOP_WORDS, Vocabulary

KINDS: dict[str, Any] = {**MODELS, "llama": save_llama, "llava": save_llava}


@pytest.mark.parametrize("name", KINDS)
def test_a_row_after_the_last_block_says_the_token_that_it_predicts(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    KINDS[name](tmp_path / name)
    reader = Reader(tmp_path / name)
    top = reader.identity.num_layers - 1
    said = 0
    for reading in reader.read(questions(4, reader.processor is not None), [top], 6):
        scores = unembed(reading.stream[top], reader)
        tokens = reading.answer.tokens
        assert scores.argmax(axis=1)[: len(tokens)].tolist() == list(tokens)
        said += len(tokens)
    assert said > 0
    assert len(top_words(reading.stream[0 if top == 0 else top], reader)) == len(reading.stream[top])


def test_the_final_norm_changes_the_words_of_a_layer_in_the_middle(llama: Path) -> None:
    reader = Reader(llama)
    norm = reader.model.get_decoder().norm
    with torch.no_grad():
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=torch.Generator().manual_seed(0)))
    states = np.concatenate([reading.stream[1] for reading in reader.read(questions(10, False), [1], 6)])
    normed = unembed(states, reader).argmax(axis=1)
    with torch.no_grad():
        bare = reader.model.lm_head(torch.from_numpy(states)).argmax(-1).numpy()
    assert np.mean(normed == bare) < 0.5


def test_vectors_of_another_size_and_models_without_words_are_refused(llama_reader: Reader, llama: Path) -> None:
    with pytest.raises(SettingError, match=r"shape \(2, 31\).*hidden size 32"):
        top_words(np.zeros((2, 31)), llama_reader)
    mute = Reader(llama)
    mute.model.set_output_embeddings(None)
    with pytest.raises(ModelError, match="no unembedding"):
        unembed(np.zeros((2, 32)), mute)


def test_words_are_whole_and_mean_something() -> None:
    words = tokenizer()
    vocabulary, ids = Vocabulary(words), words.get_vocab()
    said = {token: vocabulary.word(ids[token]) for token in ("Ġwoman", "woman", "Ġno", "Ġone", "3")}
    assert said["Ġwoman"] == said["woman"] == "woman"  # with a space or, at the beginning of an answer, without
    assert (said["Ġno"], said["Ġone"], said["3"]) == ("no", "one", "3")
    stop_words, fragments, special = ("Ġis", "Ġit", "Ġwhat"), ("Ġpe", "ople", "wom"), ("<eos>", "<image>")
    assert {vocabulary.word(ids[token]) for token in (*stop_words, *fragments, *special)} == {None}


def test_answers_numbers_and_persons_are_no_stop_words() -> None:
    assert not {"no", "nothing", "three", "his", "her", "they", "fire"} & STOP_WORDS
    assert {"the", "with", "is", "what", "there"} <= STOP_WORDS


def test_a_word_comes_once_and_at_most_fifteen_do(llama_reader: Reader) -> None:
    found = top_words(np.random.default_rng(0).normal(size=(20, 32)), llama_reader)
    assert any(found)
    for words in found:
        assert len(words) == len(set(words)) <= 15
        assert not set(words) & STOP_WORDS


def test_a_word_that_two_tokens_write_comes_once(llama: Path) -> None:
    reader = Reader(llama)
    ids = reader.tokenizer.get_vocab()
    with torch.no_grad():
        for rank, token in enumerate(("Ġwoman", "woman", "Ġno")):
            reader.model.lm_head.weight[ids[token]] = 9 - rank
    (words,) = top_words(np.ones((1, 32)), reader)
    assert words[:2] == ("woman", "no")
    assert len(words) == len(set(words))


words_ = st.sets(st.sampled_from("abcdefg"))


@given(words_, words_)
def test_overlap_is_the_share_of_the_first_ones_words(a: set[str], b: set[str]) -> None:
    overlap = word_overlap(a, b)
    assert 0 <= overlap <= 100
    assert overlap * len(a) == pytest.approx(word_overlap(b, a) * len(b))
    assert (overlap == 100) == (bool(a) and a <= b)
    assert word_overlap(sorted(a), sorted(b)) == overlap


def test_pictures_are_of_the_nearest_samples_and_not_of_the_longest_states() -> None:
    states = states_of([[1, 0], [2, 0], [9, 1], [0, 1], [0, 2]], ["a", "a", "a", "b", "b"])
    made = class_means(states)
    found = top_samples(made, [states], 2)
    for concept, samples in enumerate(found):
        distances = np.linalg.norm(states.values - made.centroids[concept], axis=1)
        assert samples == tuple(f"s{i}" for i in np.argsort(distances, kind="stable")[:2])
    assert found[0] == ("s1", "s0")
    assert top_samples(simple(states, 1), [states], 9)[0][0] == "s2"


@pytest.mark.parametrize("edges", [(), (1,), (10, 20, 30), (59,)])
def test_the_same_samples_are_found_shard_by_shard(edges: tuple[int, ...]) -> None:
    states = states_of(np.random.default_rng(0).normal(size=(60, 5)), [*"abcdef"] * 10)
    made = kmeans(states, 4)
    blocks, start = cut(states, *edges), 0
    named = []
    for block in blocks:
        stop = start + len(block.values)
        named.append(type(block)(**{**vars(block), "sample_ids": states.sample_ids[start:stop]}))
        start = stop
    assert top_samples(made, named, 7) == top_samples(made, [states], 7)


def test_a_sample_of_several_states_is_shown_once_and_by_its_best() -> None:
    states = states_of([[0, 0], [5, 0], [4, 0], [1, 0]], ["a"] * 4)
    states = type(states)(**{**vars(states), "sample_ids": ("x", "x", "y", "z")})
    assert top_samples(simple(states_of([[5, 0]], ["a"]), 1), [states], 5)[0][0] == "x"
    near = class_means(states_of([[5, 0]], ["a"]))
    assert top_samples(near, [states], 5) == [("x", "y", "z")]


def test_thumbnails_are_small_and_broken_pictures_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    Image.fromarray(noise).save(tmp_path / "copy.png", compress_level=1)
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    images = {"l": tmp_path / "large.png", "c": tmp_path / "copy.png", "b": tmp_path / "broken.png", "t": None}
    names, left_out = thumbnails([("l", "c"), ("b", "l", "t")], images, tmp_path / "out")
    assert left_out == {"b": "the picture does not open (UnidentifiedImageError)", "t": "no picture"}
    assert names == [names[1], names[1]]
    (file,) = (tmp_path / "out").iterdir()
    assert names[0] == (file.name,)
    content = file.read_bytes()
    with Image.open(file) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("PNG", (96, 64))
    thumbnails([("l",)], images, tmp_path / "out")
    assert file.read_bytes() == content
