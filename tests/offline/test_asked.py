"""What a model is asked and what its states are labelled by: said in one place, and kept in the manifests."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.offline.worlds import QUESTIONS, write_data
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question
from trimtab.offline.states import LastPrompt, Predicts, load_states, pair_states, represent
from trimtab.offline.states.data_folder import DataFolder, write_data_folder
from trimtab.offline.states.prompts import prompt_for
from trimtab.offline.states.samples import read_samples
from trimtab.offline.states.store import open_manifest

POLITE = "no snow. {question} one, two, {question}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 10, pictured=False)


def beside(data: Path, prompt: str) -> None:
    made = DataFolder(
        source="somewhere", format="csv", digest="sha256:0", prompt=prompt, shares=(1, 0, 0), parts={}, samples={}
    )
    write_data_folder(data.parent, made)


def test_the_given_prompt_counts_then_that_of_the_folder_then_the_question_alone(data: Path) -> None:
    assert prompt_for(data) == "{question}"
    beside(data, POLITE)
    assert prompt_for(data) == POLITE
    assert prompt_for(data, "{question}") == "{question}"


def test_somebody_elses_data_json_says_nothing(data: Path) -> None:
    for content in ("[]", '{"prompt": "Ha! {question}"}'):
        (data.parent / "data.json").write_text(content)
        assert prompt_for(data) == "{question}"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ('{"kind": "trimtab-data", "format_version": 2}', "format_version"),
        ('{"kind": "trimtab-data", "prompt": 3}', "source: "),
    ],
)
def test_a_broken_data_json_stops_the_run_with_one_sentence(data: Path, content: str, complaint: str) -> None:
    (data.parent / "data.json").write_text(content)
    with pytest.raises(DataError, match=rf"data\.json: .*{complaint}.*give --prompt"):
        prompt_for(data)


def test_a_prompt_without_the_question_is_for_pictures(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    asked = partial(represent, rule=LastPrompt(), layers=[2], out=tmp_path / "reps", prompt="what is it")
    with pytest.raises(SettingError, match=r"does not hold \{question\}"):
        asked(tmp_path / "no model", data)
    pictured = write_data(tmp_path / "pictured", 4, pictured=True)
    assert asked(llava_reader, pictured).request.prompt == "what is it"


def test_the_model_reads_the_prompt_and_the_manifest_keeps_it(llama_reader: Reader, data: Path, tmp_path: Path) -> None:
    beside(data, POLITE)
    represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps")
    found = load_states(tmp_path / "reps", 2)
    texts = [POLITE.replace("{question}", question) for question in QUESTIONS]
    readings = llama_reader.read([Question(text) for text in texts], [2], 16)
    assert [values.tolist() for values in found.values] == [
        pytest.approx(reading.stream[2][0].tolist(), abs=1e-4) for reading in readings
    ]
    assert (found.manifest.request.prompt, found.manifest.format_version) == (POLITE, 2)


def test_the_question_alone_is_written_as_no_prompt(llama_reader: Reader, data: Path, tmp_path: Path) -> None:
    represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps", prompt="{question}")
    assert open_manifest(tmp_path / "reps").request.prompt is None


def test_a_run_is_not_resumed_with_another_prompt_or_other_labels(
    llama_reader: Reader, data: Path, tmp_path: Path
) -> None:
    represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps")
    with pytest.raises(SettingError, match="another prompt"):
        represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps", prompt=POLITE, resume=True)
    with pytest.raises(SettingError, match="another labels"):
        represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps", labels="truth", resume=True)


def labelled(data: Path, **columns: object) -> Path:
    """The same samples with further columns, each a list of values, and the truth of sample i `Truth  i`."""
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for i, line in enumerate(lines):
        line["answer"] = f" Truth  {i % 2}"
        line |= {name: values[i] for name, values in columns.items() if isinstance(values, list)}
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("truth", ["truth 0", "truth 1"] * 5),
        ("type", ["number", "other"] * 5),
        ("mood", ["sad", "happy"] * 5),
        ("grade", ["1", "2.5"] * 5),
        ("safe", ["true", "false"] * 5),
    ],
)
def test_states_are_labelled_by_the_truth_or_by_a_column(
    llama_reader: Reader, data: Path, tmp_path: Path, by: str, expected: list[str]
) -> None:
    labelled(data, mood=["Sad", "happy\n"] * 5, grade=[1, 2.5] * 5, safe=[True, False] * 5)
    represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps", labels=by)
    found = load_states(tmp_path / "reps", 2)
    assert found.labels == tuple(expected)
    assert found.manifest.request.labels == by


def test_every_state_of_a_sample_has_its_label(llama_reader: Reader, data: Path, tmp_path: Path) -> None:
    labelled(data, mood=["sad", "happy"] * 5)
    represent(llama_reader, data, Predicts(), [2], tmp_path / "reps", labels="mood", max_new_tokens=8)
    found = load_states(tmp_path / "reps", 2)
    moods = {sample.id: sample.columns["mood"] for sample in read_samples(data).samples}
    assert len(found.labels) > len(set(found.sample_ids))
    assert list(found.labels) == [moods[sample] for sample in found.sample_ids]
    with pytest.raises(SettingError, match=r"cannot be paired.*--label answer"):
        pair_states(found, found)


def test_a_sample_without_a_label_is_skipped_and_counted(llama_reader: Reader, data: Path, tmp_path: Path) -> None:
    labelled(data, mood=["sad", "", None, " ", ["sad"], {}, "happy", "happy", "sad", "sad"])
    manifest = represent(llama_reader, data, LastPrompt(), [2], tmp_path / "reps", labels="mood")
    assert [skip.id for skip in manifest.skipped] == ["s1", "s2", "s3", "s4", "s5"]
    assert {skip.reason for skip in manifest.skipped} == {"no label: the sample has no 'mood'"}


def test_a_label_that_no_sample_has_is_refused_before_the_model_is_loaded(data: Path, tmp_path: Path) -> None:
    labelled(data, mood=["sad", "happy"] * 5)
    with pytest.raises(DataError, match=r"no sample has a label 'moods'; did you mean 'mood'.* truth, type, weather"):
        represent(tmp_path / "no model", data, LastPrompt(), [2], tmp_path / "reps", labels="moods")


def test_a_null_answer_is_none(data: Path) -> None:
    data.write_text('{"id": "a", "question": "what", "answer": null, "type": null, "more": null}\n')
    (sample,) = read_samples(data).samples
    assert (sample.answer, sample.type, dict(sample.columns)) == ("", "", {})


def test_the_command_takes_a_prompt_and_a_label(llama: Path, data: Path, tmp_path: Path) -> None:
    labelled(data, mood=["sad", "happy"] * 5)
    asked = ("--rule", "last-prompt", "--layer", "2", "--prompt", POLITE, "--label", "mood", "--background", "0")
    done = CliRunner().invoke(app, ["represent", str(llama), str(data), *asked, "--out", str(tmp_path / "reps")])
    assert done.exit_code == 0, done.output
    request = open_manifest(tmp_path / "reps").request
    assert (request.prompt, request.labels) == (POLITE, "mood")
