"""Splits on disk: the same bytes every time, balanced, and never half of one."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from examples.tinyworld.data import FILES, MANIFEST, BrokenSplit, read_split, samples, write_split
from examples.tinyworld.scene import split_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_split(tmp_path / "dev", "dev", scenes=6, seed=3)
    return tmp_path / "dev"


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_split_is_read_as_it_was_written(folder: Path) -> None:
    read = read_split(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert len(read) == sum(manifest["counts"].values()) == 6 * 8
    assert len({sample.id for sample in read}) == len(read)
    assert all(Image.open(folder / sample.image).size == (112, 112) for sample in read)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "again", "dev", scenes=6, seed=3)
    write_split(tmp_path / "other", "dev", scenes=6, seed=4)
    assert digests(tmp_path / "again") == digests(folder)
    assert digests(tmp_path / "other") != digests(folder)


def test_all_scenes_of_a_split_belong_to_it_and_differ() -> None:
    drawn = [scene for scene, _ in samples("test", scenes=200, seed=0)]
    assert {split_of(scene) for scene in drawn} == {"test"}
    assert len({scene.description() for scene in drawn}) == 200


def test_answers_are_balanced_in_each_type() -> None:
    asked = [sample for _, several in samples("test", scenes=150, seed=0) for sample in several]
    counts = {kind: Counter(s.answer for s in asked if s.type == kind) for kind in FILES["vqa.jsonl"]}
    assert {kind: sum(count.values()) for kind, count in counts.items()} == {"yes/no": 300, "number": 300, "other": 300}
    assert min(counts["yes/no"].values()) > 130
    assert set(counts["number"]) == set("01234")
    assert min(counts["number"].values()) > 50
    assert min(counts["other"].values()) >= 5
    assert counts["other"]["white"] >= 8


def test_nobody_is_asked_the_same_twice_about_a_picture() -> None:
    for _, asked in samples("dev", scenes=100, seed=0):
        assert len({sample.question for sample in asked}) == len(asked)


def test_a_folder_without_a_split_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BrokenSplit, match=r"no split in .*absent; write it with: python -m examples\.tinyworld\.data"):
        read_split(tmp_path / "absent")


def test_a_half_written_folder_is_refused(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(BrokenSplit, match="its writing was interrupted"):
        read_split(folder)


@pytest.mark.parametrize("damage", ["line", "picture", "missing picture", "missing file"])
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    picture = sorted((folder / "images").iterdir())[0]
    if damage == "line":
        lines = (folder / "vqa.jsonl").read_text().splitlines()
        (folder / "vqa.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    elif damage == "picture":
        Image.new("RGB", (112, 112)).save(picture)
    elif damage == "missing picture":
        picture.unlink()
    else:
        (folder / "safety.jsonl").unlink()
    with pytest.raises(BrokenSplit, match="is not what its"):
        read_split(folder)


def test_an_interrupted_writing_leaves_no_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.tinyworld.data._digest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path / "dev", "dev", scenes=2, seed=0)
    monkeypatch.undo()
    assert not (tmp_path / "dev").exists()
    write_split(tmp_path / "dev", "dev", scenes=2, seed=0)
    assert len(read_split(tmp_path / "dev")) == 16


def test_writing_over_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="remove it or name another"):
        write_split(folder, "dev", scenes=2, seed=0)
