"""The whole way on the model that ships: questions → states → dictionary → profile → another answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.tinyworld.data import write_split
from trimtab.offline.concepts import class_means
from trimtab.offline.images import open_image
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question
from trimtab.offline.states import LastPrompt, LayerStates, Predicts, load_states, represent
from trimtab.offline.states.samples import Sample, read_samples
from trimtab.offline.steering import fine_profile
from trimtab.vectors.profile import FineLayer

MODEL = Path(__file__).parents[2] / "examples" / "tinyworld" / "model"

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="the model is not trained yet")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(MODEL, "float32")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tinyworld") / "dev"
    write_split(folder, "dev", 30, seed=11)
    return folder


@pytest.fixture(scope="module")
def states(reader: Reader, split: Path, tmp_path_factory: pytest.TempPathFactory) -> LayerStates:
    out = tmp_path_factory.mktemp("reps") / "vqa"
    represent(reader, split / "vqa.jsonl", LastPrompt(), [3, 5], out)
    return load_states(out, 5)


@contextmanager
def steered(reader: Reader, layer: int, tensors: FineLayer, alpha: float) -> Iterator[None]:
    """The definition of serving, as a hook: at every answer position, the row of the nearest centroid is added."""
    centroids, vectors = (torch.from_numpy(part.copy()) for part in (tensors.centroids, tensors.vectors))

    def hook(block: torch.nn.Module, inputs: object, output: Any) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        scores = hidden[:, -1] @ centroids.T - centroids.square().sum(1) / 2
        hidden[:, -1] += alpha * vectors[scores.argmax(1)]

    handle = reader.blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def answers(reader: Reader, samples: tuple[Sample, ...]) -> list[str]:
    asked = [Question(sample.question, open_image(sample.image)) for sample in samples if sample.image is not None]
    return [reading.answer.text for reading in reader.read(asked, [0], 4)]


@torch.no_grad()
def test_a_state_says_the_word_that_labels_it(reader: Reader, states: LayerStates) -> None:
    normed = reader.model.get_decoder().norm(torch.from_numpy(states.values))
    predicted = reader.model.lm_head(normed).argmax(-1).tolist()
    assert predicted == states.tokens.tolist()
    assert [reader.tokenizer.decode([token]).strip() for token in predicted] == list(states.labels)


def test_a_fine_profile_moves_its_answer_to_the_target_and_leaves_the_others(
    reader: Reader, split: Path, states: LayerStates
) -> None:
    samples = read_samples(split / "vqa.jsonl").samples
    profile = fine_profile("yes-to-no", [(states, class_means(states))], {"yes": "no"})
    tensors = profile.tensors[5]
    assert isinstance(tensors, FineLayer)
    before = answers(reader, samples)
    assert before.count("yes") > 10
    with steered(reader, 5, tensors, 0.0):
        assert answers(reader, samples[:32]) == before[:32]
    with steered(reader, 5, tensors, 1.0):
        after = answers(reader, samples)
    moved = np.mean([b == "no" for a, b in zip(before, after, strict=True) if a == "yes"])
    kept = np.mean([a == b for a, b in zip(before, after, strict=True) if a != "yes"])
    assert moved > 0.9
    assert kept > 0.95


def test_the_words_of_a_caption_have_their_states(reader: Reader, split: Path, tmp_path: Path) -> None:
    manifest = represent(reader, split / "captions.jsonl", Predicts(), [5], tmp_path / "reps", limit=8)
    found = load_states(tmp_path / "reps", 5)
    assert manifest.rows > 8 * 5
    assert {"a", "the"} & set(found.labels)
    assert class_means(found).nearest(found.values).shape == (manifest.rows,)
