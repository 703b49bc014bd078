"""K = 20 concepts of words of interest and of answers, from the model that ships with the project, as commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from examples.tinyworld.data import write_split
from tests.offline.test_clip import save_clip
from trimtab.offline.cli.app import app
from trimtab.offline.concepts import class_means, top_words
from trimtab.offline.concepts.grounding import unembed
from trimtab.offline.concepts.mini_batch import mini_batch_kmeans
from trimtab.offline.findings import ChoiceFound, ConceptsFound, read_findings
from trimtab.offline.models import Reader
from trimtab.offline.states import LastPrompt, Predicts, load_states, represent
from trimtab.offline.states.store import ShardedStates
from trimtab.vectors import ConceptDictionary

MODEL = Path(__file__).parents[2] / "examples" / "tinyworld" / "model"
OF_INTEREST = ("man", "ball")

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="the model is not trained yet")


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(MODEL, "float32")


@pytest.fixture(scope="module")
def house(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes; states of answers at layers 3 and 5, and of "man" and "ball" in captions at layer 5; dictionaries."""
    house = tmp_path_factory.mktemp("house")
    write_split(house / "dev", "dev", 130, seed=3)
    represent(reader, house / "dev" / "vqa.jsonl", LastPrompt(), [3, 5], house / "answers", limit=300)
    represent(reader, house / "dev" / "captions.jsonl", Predicts(OF_INTEREST), [5], house / "words")
    for reps in ("answers", "words"):
        made = trimtab("dictionary", house / reps, "-l", 5, "--k", 20, "--out", house / f"{reps}-20")
        assert made.exit_code == 0, made.output
    return house


@pytest.mark.parametrize(("reps", "data"), [("words", "captions"), ("answers", "vqa")])
def test_twenty_concepts_get_words_pictures_and_quality(house: Path, reps: str, data: str, tmp_path: Path) -> None:
    made = ConceptDictionary.load(house / f"{reps}-20")
    command = (
        "ground", house / reps, house / f"{reps}-20", "--model", MODEL, "--data", house / "dev" / f"{data}.jsonl",
        "--findings", tmp_path, "--clip", save_clip(tmp_path / "clip"),
    )  # fmt: skip
    result = trimtab(*command)
    assert result.exit_code == 0, result.output
    for what in (f"reading {house / reps}: ", "pictures: ", "CLIPScore: "):
        lines = [line for line in result.stderr.splitlines() if line.startswith(what)]
        assert (lines[0].endswith("begins"), lines[-1].endswith("done")) == (True, True)
    (found,) = read_findings(tmp_path).values()
    assert isinstance(found, ConceptsFound)
    assert (len(found.concepts), found.layer, found.method) == (20, 5, "kmeans")
    assert set(found.quality) == {
        "mean pairwise word overlap", "mean pairwise sample overlap", "reconstruction error", "smallest concept",
        "largest concept", "empty concepts", "CLIPScore",
    }  # fmt: skip
    pure = [card for card in found.concepts if card.purity == 1]
    assert len(pure) >= 5
    for card in pure:
        assert card.words[0] == card.label
    for card, count in zip(found.concepts, made.counts, strict=True):
        assert card.rows == count
        assert 1 <= len(card.images) <= 5
        for image in card.images:
            with Image.open(tmp_path / image) as opened:
                assert opened.format == "PNG"
                assert max(opened.size) <= 96
    if reps == "words":
        assert {card.label for card in found.concepts} == set(OF_INTEREST)
        skipped = re.search(r"(\d+) of 130 samples gave none", found.note)
        assert skipped is not None
        assert int(skipped.group(1)) > 0  # not every caption has a man or a ball
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*.png")}
    again = trimtab(*command)
    assert again.exit_code == 0, again.output
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*.png")} == before
    assert read_findings(tmp_path)[f"concepts-{reps}-20"] == found


@pytest.mark.parametrize("layer", [3, 5])
def test_the_words_of_an_answers_mean_begin_with_that_answer(reader: Reader, house: Path, layer: int) -> None:
    means = class_means(load_states(house / "answers", layer), min_count=5)
    words = dict(zip(means.labels, top_words(means.centroids, reader), strict=True))
    assert len(words) >= 7
    for answer in ("yes", "no", "2"):
        assert words[answer][0] == answer


def test_without_the_final_norm_most_words_of_the_middle_would_come_in_another_order(
    reader: Reader, house: Path
) -> None:
    means = class_means(load_states(house / "answers", 3), min_count=5).centroids
    with torch.no_grad():
        bare = reader.model.get_output_embeddings()(torch.from_numpy(means.copy())).numpy()
    normed = unembed(means, reader)
    best, without = (np.argsort(-scores, axis=1)[:, :15] for scores in (normed, bare))
    assert (best != without).any(axis=1).mean() > 0.5


def test_the_streamed_dictionary_is_nearly_that_of_all_states(house: Path) -> None:
    labels = ConceptDictionary.load(house / "answers-20").labels
    streamed = mini_batch_kmeans(ShardedStates(house / "answers", 5), 20)
    assert len(set(labels) ^ set(streamed.labels)) <= 3
    assert streamed.counts.sum() == len(load_states(house / "answers", 5).values)


@pytest.mark.parametrize("method", ["mini-batch-kmeans", "semi-nmf", "pca", "simple"])
def test_every_method_is_a_command_away(house: Path, method: str, tmp_path: Path) -> None:
    made = trimtab("dictionary", house / "answers", "-l", 5, "-k", 8, "--method", method, "--out", tmp_path / "d")
    assert made.exit_code == 0, made.output
    assert ConceptDictionary.load(tmp_path / "d").method == method
    assert method in trimtab("inspect", tmp_path / "d").stdout
    grounded = trimtab("ground", house / "answers", tmp_path / "d", "--model", MODEL, "--findings", tmp_path / "run")
    assert grounded.exit_code == 0, grounded.output
    (found,) = read_findings(tmp_path / "run").values()
    assert isinstance(found, ConceptsFound)
    assert all(card.words and not card.images for card in found.concepts)


def test_k_is_chosen_from_a_curve(house: Path, tmp_path: Path) -> None:
    result = trimtab(
        "choose-k", house / "answers", "-l", 5, "-k", 20, "-k", 5, "-k", 10, "--model", MODEL, "--findings", tmp_path
    )
    assert result.exit_code == 0, result.output
    (found,) = read_findings(tmp_path).values()
    assert isinstance(found, ChoiceFound)
    assert found.k == (5, 10, 20)
    assert {"reconstruction error", "inertia", "mean pairwise word overlap", "smallest concept"} < set(found.curves)
    said = "no knee" if found.chosen is None else f"knee at k = {found.chosen}"
    assert said in result.stdout


def test_concepts_that_emptied_out_are_counted(house: Path, tmp_path: Path) -> None:
    result = trimtab("dictionary", house / "answers", "-l", 5, "-k", 25, "--method", "pca", "--out", tmp_path / "d")
    assert result.exit_code == 0
    empty = int((ConceptDictionary.load(tmp_path / "d").counts == 0).sum())
    assert empty > 0
    assert f"{empty} of 25 concepts are the strongest of no state" in result.stderr


def test_what_does_not_fit_together_is_one_sentence(house: Path, llava: Path, tmp_path: Path) -> None:
    dictionary, out = house / "answers-20", ("--findings", tmp_path / "run")
    for arguments, message in (
        (("ground", house / "answers", dictionary, "--model", llava, *out), "made for another model"),
        (("ground", house / "answers", dictionary, "--model", MODEL, "--clip", llava, *out), "give the samples file"),
        (
            (
                "ground",
                house / "answers",
                dictionary,
                "--model",
                MODEL,
                "--data",
                house / "dev" / "captions.jsonl",
                *out,
            ),
            "is not the file that the states come from",
        ),
        (("choose-k", house / "answers", "-l", 5, "-k", 5, "--method", "class-means", *out), "as many concepts as"),
        (("choose-k", house / "answers", "-l", 5, "-k", 5, "--model", llava, *out), "made for another model"),
        (("choose-k", house / "answers", "-l", 4, "-k", 5, *out), "layer 4 was not kept"),
    ):
        result = trimtab(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert len([line for line in result.stderr.splitlines() if not line.startswith("loading ")]) == 1
    third = trimtab("dictionary", house / "answers", "-l", 3, "--out", tmp_path / "third")
    assert third.exit_code == 0
    other = trimtab("ground", house / "words", tmp_path / "third", "--model", MODEL, *out)
    assert other.exit_code == 1
    assert "layer 3 was not kept" in other.stderr
    assert not (tmp_path / "run").exists()
