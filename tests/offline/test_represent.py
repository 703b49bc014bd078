"""Representations on disk: what a folder holds, that it can be continued, and that damage is noticed."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.offline.worlds import picture, questions, write_data
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.states import LastPrompt, MeanGenerated, Predicts, load_states, represent
from trimtab.offline.states.samples import read_samples
from trimtab.offline.states.store import open_manifest, verify_states

LAYERS = (1, 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 40, pictured=True)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_on_disk_are_those_that_the_model_shows(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    represent(llava_reader, data, Predicts(), LAYERS, tmp_path / "reps", batch_size=2, max_new_tokens=8)
    kept = {layer: load_states(tmp_path / "reps", layer) for layer in LAYERS}
    row = 0
    for i, question in enumerate(questions(40, True)):
        (reading,) = llava_reader.read([question], LAYERS, 8)
        for expected in Predicts().states(reading.answer, llava_reader.spell):
            for layer in LAYERS:
                found = kept[layer]
                np.testing.assert_allclose(found.values[row], reading.stream[layer][expected.positions[0]], atol=1e-4)
                assert (found.sample_ids[row], found.labels[row]) == (f"s{i}", expected.label)
                assert (found.tokens[row], found.positions[row]) == (expected.token, expected.positions[0])
            row += 1
    assert row == len(kept[1].values) > 40
    assert kept[1].values.dtype == np.float32


def test_the_mean_over_an_answer_is_the_mean_of_its_states(llama_reader: Reader, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 10, pictured=False)
    represent(llama_reader, data, MeanGenerated(), [2], tmp_path / "reps", max_new_tokens=8)
    readings = llama_reader.read(questions(10, False), [2], 8)
    expected = [reading.stream[2][1:].mean(axis=0) for reading in readings if reading.answer.tokens]
    np.testing.assert_allclose(load_states(tmp_path / "reps", 2).values, expected, atol=1e-4)


def test_the_generated_answers_lie_beside_the_states(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    represent(llava_reader, data, Predicts(), [0], tmp_path / "reps", limit=10, max_new_tokens=8)
    lines = [json.loads(line) for line in (tmp_path / "reps" / "rows-00000.jsonl").read_text().splitlines()]
    expected = llava_reader.read(questions(10, True), [0], 8)
    assert [(line["id"], line["answer"]) for line in lines] == [
        (f"s{i}", reading.answer.text) for i, reading in enumerate(expected)
    ]


def test_a_run_that_is_killed_and_resumed_leaves_the_same_bytes(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run = partial(represent, llava_reader, data, Predicts(), LAYERS, batch_size=1, max_new_tokens=8)
    # Forked, so that it need not import and load everything anew, and killed without a chance to tidy up.
    process = get_context("fork").Process(target=run, args=(broken,))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (broken / "rows-00001.safetensors").exists():
            assert process.is_alive(), "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()
    assert 0 < open_manifest(broken).done < 40
    with pytest.raises(DataError, match="--resume"):
        load_states(broken, 1)
    run(whole)
    run(broken, resume=True)
    shutil.copytree(whole, tmp_path / "again")
    run(tmp_path / "again", resume=True)  # nothing is left to do in a folder that is complete
    left = {name: content for name, content in files_of(broken).items() if not name.startswith(".")}
    assert left == files_of(whole) == files_of(tmp_path / "again")
    assert len(left) == 11


def test_a_run_is_resumed_with_its_own_settings_only(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "reps"
    represent(llava_reader, data, LastPrompt(), [1], out, limit=8)
    with pytest.raises(DataError, match="exists already"):
        represent(llava_reader, data, LastPrompt(), [1], out, limit=8)
    with pytest.raises(SettingError, match="another rule"):
        represent(llava_reader, data, Predicts(), [1], out, limit=8, max_new_tokens=16, resume=True)
    with pytest.raises(SettingError, match="another layers"):
        represent(llava_reader, data, LastPrompt(), [1, 2], out, limit=8, resume=True)
    with pytest.raises(SettingError, match=r"another limit \(8, now 9\)"):
        represent(llava_reader, data, LastPrompt(), [1], out, limit=9, resume=True)
    data.write_text(data.read_text().replace("blue", "red"))
    with pytest.raises(SettingError, match="another data"):
        represent(llava_reader, data, LastPrompt(), [1], out, limit=8, resume=True)


@pytest.mark.parametrize("name", ["rows-00000.safetensors", "rows-00000.jsonl"])
def test_one_changed_byte_in_a_shard_is_noticed(llava_reader: Reader, data: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "reps"
    represent(llava_reader, data, LastPrompt(), [1], out, limit=8)
    assert verify_states(out).complete
    content = bytearray((out / name).read_bytes())
    content[-3] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: is not what was written"):
        load_states(out, 1)
    with pytest.raises(DataError, match="is not what was written"):
        represent(llava_reader, data, LastPrompt(), [1], out, limit=8, resume=True)
    (out / name).unlink()
    with pytest.raises(DataError, match=f"{name}: is missing"):
        verify_states(out)


def test_a_picture_that_cannot_be_read_is_skipped_and_counted(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    whole = represent(llava_reader, data, Predicts(), [1], tmp_path / "whole", batch_size=4)
    images = data.parent / "images"
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:300])
    (images / "4.png").write_bytes(b"no picture at all")
    (images / "5.png").unlink()
    manifest = represent(llava_reader, data, Predicts(), [1], tmp_path / "reps", batch_size=4)
    unreadable = [skip.id for skip in manifest.skipped if "the picture" in skip.reason]
    assert unreadable == ["s3", "s4", "s5"]
    assert manifest.complete
    before, after = load_states(tmp_path / "whole", 1), load_states(tmp_path / "reps", 1)
    others = [i for i, identifier in enumerate(before.sample_ids) if identifier not in unreadable]
    assert after.sample_ids == tuple(before.sample_ids[i] for i in others)
    np.testing.assert_allclose(after.values, before.values[others], atol=1e-4)
    assert whole.rows > manifest.rows


def test_an_answer_without_a_row_is_counted_too(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all 9 samples were skipped \(9 because: no state"):
        represent(llava_reader, data, Predicts(("zebra",)), [1], tmp_path / "reps", limit=9)
    manifest = open_manifest(tmp_path / "reps")
    assert (manifest.rows, len(manifest.skipped)) == (0, 9)
    with pytest.raises(DataError, match="no state at all"):
        load_states(tmp_path / "reps", 1)


def test_questions_with_and_without_a_picture_share_a_file(llava_reader: Reader, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4, pictured=True)
    with data.open("a") as file:
        file.write('\n{"id": 7, "question": "what is it"}\n')
    manifest = represent(llava_reader, data, LastPrompt(), [1], tmp_path / "reps")
    assert manifest.request.samples == 5
    assert manifest.rows + len(manifest.skipped) == 5


def test_a_layer_that_was_not_kept_is_refused_with_those_that_were(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    represent(llava_reader, data, LastPrompt(), LAYERS, tmp_path / "reps", limit=4)
    with pytest.raises(SettingError, match="layers there are 1, 3"):
        load_states(tmp_path / "reps", 2)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "JSON list"),
        ('{"question": "what"}', "'id' must hold text"),
        ('{"id": "a", "question": " "}', "'question' must hold text"),
        ('{"id": "s0", "question": "what"}', "stands on line 1 already"),
        ('{"id": "a", "question": "what", "image": 3}', "'image' must be a path"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"id": "s0", "question": "what is it"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2") as caught:
        read_samples(path)
    assert complaint in str(caught.value)


def test_a_samples_file_that_is_no_such_thing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "absent.jsonl")
    picture(0).save(tmp_path / "picture.png")
    with pytest.raises(DataError, match="not UTF-8"):
        read_samples(tmp_path / "picture.png")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no sample"):
        read_samples(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        ('"name": "rows-00000"', '"name": "rows-1"', "name"),
        ('"name": "rows-00000"', '"name": "rows-00001"', "sha256 must be given"),
        ('  "man",', "", "has a label outside"),
    ],
)
def test_a_manifest_that_does_not_fit_its_shards_is_one_sentence(
    llava_reader: Reader, data: Path, tmp_path: Path, change: tuple[str, str, str]
) -> None:
    represent(llava_reader, data, Predicts(), [1], tmp_path / "reps", limit=10, max_new_tokens=8)
    path = tmp_path / "reps" / "manifest.json"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change[:2]))
    with pytest.raises(DataError, match=change[2]):
        load_states(tmp_path / "reps", 1)


@pytest.mark.parametrize("text", ["", "{}", '{"format_version": 2}', "\udcff"])
def test_a_manifest_of_another_kind_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_manifest(tmp_path)
