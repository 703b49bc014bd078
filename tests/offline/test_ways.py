"""docs/data.md's four ways to say "these toward those", as they are typed, on a tiny text model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.offline.worlds import WORDS
from trimtab.offline.cli.app import app
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question, decoder_blocks
from trimtab.offline.states.samples import read_samples
from trimtab.vectors import Profile, load_profile
from trimtab.vectors.profile import CoarseLayer

LAYER = 2
SAD, HAPPY = "no snow no no no. {question}", "red is red is yes yes. {question}"


def trimtab(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 questions in a table, each with a truth, a type and a mood."""
    path = tmp_path_factory.mktemp("ways") / "questions.csv"
    rows = [
        f"{a} {b} {c},{a},{'what' if i % 2 else 'is'}"
        for i, (a, b, c) in enumerate(product(WORDS[:8], WORDS[3:8], WORDS[8:11]))
    ]
    path.write_text("question,answer,type\n" + "\n".join(rows) + "\n")
    return path


@contextmanager
def steered(reader: Reader, profile: Profile, alpha: float) -> Iterator[None]:
    """alpha times the vector, added after its block at the last position of the prompt and at those of the answer."""

    def add(block: object, inputs: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, torch.Tensor)
        hidden[:, -1] += alpha * vector

    tensors = profile.tensors[LAYER]
    assert isinstance(tensors, CoarseLayer)
    vector = torch.from_numpy(np.array(tensors.vector))
    handle = decoder_blocks(reader.model)[LAYER].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def answers(reader: Reader, texts: Sequence[str]) -> list[str]:
    return [one.answer.text for one in reader.read([Question(text) for text in texts], [LAYER], 4)]


def test_contrastive_pairs_steer_a_text_model_toward_the_other_prompt(
    questions: Path, llama: Path, llama_reader: Reader, tmp_path: Path
) -> None:
    moods = tmp_path / "moods"
    trimtab("data", "csv", questions, "--out", moods, "--contrast", f"sad={SAD}", "--contrast", f"happy={HAPPY}")
    trimtab(
        "represent", llama, moods / "train.jsonl", "--rule", "last-prompt", "--label", "contrast", "-l", LAYER,
        "--out", moods / "states",
    )  # fmt: skip
    trimtab(
        "profile", moods / "states", "-l", LAYER, "--map", "sad=happy", "--name", "cheerful",
        "--registry", tmp_path / "profiles", "--alpha-min", -2,
    )  # fmt: skip
    profile = load_profile(tmp_path / "profiles" / "cheerful")
    assert profile.manifest.provenance.labels == "contrast"
    asked: dict[str, list[str]] = {mood: [] for mood in ("sad", "happy")}
    for one in read_samples(moods / "test.jsonl").samples:
        asked[one.columns["contrast"]].append(one.question)
    said = {mood: answers(llama_reader, texts) for mood, texts in asked.items()}

    with steered(llama_reader, profile, 1.0):
        cheered = answers(llama_reader, asked["sad"])
    with steered(llama_reader, profile, -1.0):
        saddened = answers(llama_reader, asked["happy"])
    assert way_gone(said["sad"], said["happy"], cheered) > 0.25
    assert way_gone(said["happy"], said["sad"], saddened) > 0.25


def way_gone(start: Sequence[str], goal: Sequence[str], told: Sequence[str]) -> float:
    """How far the frequencies of first words went from `start` to `goal`: 0 not at all, 1 all the way."""
    first = [[(text.split() or [""])[0] for text in texts] for texts in (start, goal, told)]
    words = sorted({word for one in first for word in one})
    begun, ended, now = (np.array([one.count(word) / len(one) for word in words]) for one in first)
    return float((now - begun) @ (ended - begun) / ((ended - begun) @ (ended - begun)))


def test_a_judge_of_answers_makes_a_profile(questions: Path, llama: Path, tmp_path: Path) -> None:
    trimtab("data", "csv", questions, "--out", tmp_path / "plain", "--split", "1,0,0")
    trimtab(
        "represent", llama, tmp_path / "plain" / "train.jsonl", "--rule", "last-prompt", "-l", LAYER,
        "--out", tmp_path / "states",
    )  # fmt: skip
    told = [json.loads(line) for path in sorted((tmp_path / "states").glob("rows-*.jsonl")) for line in path.open()]
    verdicts = [{"id": one["id"], "label": "Short" if len(one["answer"]) < 10 else "long"} for one in told[:80]]
    (tmp_path / "judge.jsonl").write_text("".join(json.dumps(one) + "\n" for one in verdicts))
    trimtab("relabel", tmp_path / "states", "--by", tmp_path / "judge.jsonl", "--out", tmp_path / "judged")
    common = ("--map", "long=short", "--registry", tmp_path / "profiles")
    trimtab("profile", tmp_path / "judged", "-l", LAYER, *common, "--name", "brief")
    counted = load_profile(tmp_path / "profiles" / "brief").manifest.provenance.samples
    assert sum(counted.values()) == 80
    assert all(counted.values())
    trimtab("dictionary", tmp_path / "judged", "-l", LAYER, "--method", "kmeans", "--k", 8, "--out", tmp_path / "fine")
    trimtab("profile", tmp_path / "judged", "-d", tmp_path / "fine", *common, "--name", "brief-fine", "--force")
