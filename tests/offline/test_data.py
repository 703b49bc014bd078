"""`trimtab data`: samples of the field's data sets, of tables and of folders of pictures, split by picture."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.formats import FORMATS
from trimtab.offline.cli.app import app
from trimtab.offline.data.split import drawn, split
from trimtab.offline.evaluation.datasets.coco import read_coco
from trimtab.offline.evaluation.datasets.vqav2 import read_vqav2
from trimtab.offline.run import read_commands
from trimtab.offline.states.data_folder import read_data_folder
from trimtab.offline.states.prompts import prompt_for
from trimtab.offline.states.samples import Sample, read_samples

PARTS = ("train", "dev", "test")


def made(form: str, source: Path, out: Path, *more: object) -> Result:
    return CliRunner().invoke(app, ["data", form, str(source), "--out", str(out), *map(str, more)])


def parts(out: Path) -> dict[str, tuple[Sample, ...]]:
    return {part: read_samples(out / f"{part}.jsonl").samples for part in PARTS if (out / f"{part}.jsonl").exists()}


def everything(out: Path) -> list[Sample]:
    return [one for samples in parts(out).values() for one in samples]


# ---- the split


def asked(pictures: Sequence[tuple[str, Sequence[str]]]) -> tuple[list[Sample], dict[str, str]]:
    """Samples of pictures, each with a type per question; and their groups."""
    samples = [
        Sample(f"{name}/{i}", "?", Path(name), type=kind) for name, kinds in pictures for i, kind in enumerate(kinds)
    ]
    return samples, {one.id: str(one.image) for one in samples}


WORLD = [(f"p{i}", ["yes/no", "number", "other"][: 1 + i % 3]) for i in range(120)]
SHARES = (0.6, 0.2, 0.2)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 5), st.integers(3, 200))
def test_no_picture_is_torn_and_neither_order_nor_number_moves_one(
    random: random.Random, seed: int, count: int
) -> None:
    samples, groups = asked(WORLD)
    found = split(samples, groups, SHARES, seed)
    part_of = {one.id: part for part, own in found.items() for one in own}
    assert len(part_of) == len(samples)
    assert all(len({part_of[one.id] for one in samples if groups[one.id] == name}) == 1 for name, _ in WORLD)
    shuffled = random.sample(samples, len(samples))
    again = split(shuffled, groups, SHARES, seed)
    assert {one.id: part for part, own in again.items() for one in own} == part_of
    few = drawn(found, SHARES, count, seed)
    more = drawn(again, SHARES, count + 7, seed)
    for part in PARTS:
        kept = {one.id for one in few[part]}
        assert kept <= {one.id for one in more[part]} <= {one.id for one in found[part]}


def test_every_part_has_its_share_of_every_type() -> None:
    samples, groups = asked([(f"p{i}", ["rare" if i % 10 == 0 else "common"]) for i in range(200)])
    found = split(samples, groups, SHARES, 0)
    counts = {part: Counter(one.type for one in own) for part, own in found.items()}
    for part, share in zip(PARTS, SHARES, strict=True):
        assert abs(counts[part]["rare"] - 20 * share) <= 1
        assert abs(counts[part]["common"] - 180 * share) <= 1
    assert split(samples, groups, SHARES, 1) != found
    few = drawn(found, SHARES, 50, 0)
    assert {part: len(own) for part, own in few.items()} == {"train": 30, "dev": 10, "test": 10}
    assert [Counter(one.type for one in few[part])["rare"] for part in PARTS] == [3, 1, 1]


# ---- the data sets of the field


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four data sets in their own forms, of one drawn world."""
    house = tmp_path_factory.mktemp("house")
    write_split(house / "split", "dev", 8, seed=5)
    for name, write in FORMATS.items():
        (house / name).mkdir()
        write(house / name, house / "split", read_split(house / "split"))
    return house


@pytest.mark.parametrize("form", FORMATS)
def test_a_data_set_of_the_field_becomes_samples_that_evaluate_would_ask(
    house: Path, tmp_path: Path, form: str
) -> None:
    done = made(form, house / form, house / f"{form}-data")
    assert done.exit_code == 0, done.output
    samples = everything(house / f"{form}-data")
    assert len({one.id for one in samples}) == len(samples) > 7
    assert all(one.image is not None and one.image.is_file() for one in samples)
    lines = (house / f"{form}-data" / "train.jsonl").read_text().splitlines()
    assert all(json.loads(line)["image"].startswith(f"../{form}/") for line in lines)
    torn = defaultdict[Path | None, set[str]](set)
    for part, own in parts(house / f"{form}-data").items():
        for one in own:
            torn[one.image].add(part)
    assert {len(found) for found in torn.values()} == {1}


def test_the_prompt_of_the_format_is_kept(house: Path, tmp_path: Path) -> None:
    for form, own in (("vqav2", read_vqav2(house / "vqav2").prompt), ("coco", read_coco(house / "coco").prompt)):
        assert made(form, house / form, tmp_path / form).exit_code == 0
        assert prompt_for(tmp_path / form / "train.jsonl") == own
    assert {one.question for one in everything(tmp_path / "coco")} == {own}
    given = ("--question", "What is it?", "--prompt", "Briefly. {question}")
    assert made("coco", house / "coco", tmp_path / "other", *given).exit_code == 0
    assert prompt_for(tmp_path / "other" / "dev.jsonl") == "Briefly. {question}"
    assert {one.question for one in everything(tmp_path / "other")} == {"What is it?"}


def test_the_three_pictures_of_an_unsafe_question_stay_together(house: Path, tmp_path: Path) -> None:
    assert made("mm-safetybench", house / "mm-safetybench", tmp_path / "out").exit_code == 0
    part_of = defaultdict[tuple[str, str], set[str]](set)
    for part, own in parts(tmp_path / "out").items():
        for one in own:
            if one.type != "benign":
                part_of[one.type, one.id.rpartition("/")[2]].add(part)
    assert {len(found) for found in part_of.values()} == {1}


def test_data_json_says_what_was_done(house: Path, tmp_path: Path) -> None:
    assert made("pope", house / "pope", tmp_path / "out", "--draw", 30, "--seed", 3).exit_code == 0
    told = read_data_folder(tmp_path / "out")
    assert told is not None
    assert (told.format, told.source, told.seed, told.drawn) == ("pope", str(house / "pope"), 3, 30)
    assert told.samples == {part: len(own) for part, own in parts(tmp_path / "out").items()}
    assert told.samples == {"train": 18, "dev": 6, "test": 6}
    assert told.parts == {part: read_samples(tmp_path / "out" / f"{part}.jsonl").digest for part in PARTS}
    images = {json.loads(line)["image"] for line in (tmp_path / "out" / "dev.jsonl").read_text().splitlines()}
    assert all(Path(image).is_absolute() for image in images)


# ---- tables and folders


ROWS = [
    {"id": f"r{i}", "question": f"how many, \"really\"?\nline {i}", "image": f"pics/{i % 7}.png", "answer": i % 3,
     "type": "number", "mood": "sad" if i % 2 else "happy", "note": None}
    for i in range(21)
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "source" / "pics").mkdir(parents=True)
    for i in range(7):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "source" / "pics" / f"{i}.png")
    return tmp_path / "source"


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    if path.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(list(rows)), path)
        return path
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_becomes_samples_with_its_further_columns(pictures: Path, tmp_path: Path, ending: str) -> None:
    table = write_rows(pictures / f"rows.{ending}", ROWS)
    done = made("parquet" if ending == "parquet" else "csv", table, tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = {one.id: one for one in everything(tmp_path / "out")}
    assert len(found) == len(ROWS)
    for row in ROWS:
        one = found[str(row["id"])]
        assert (one.question, one.answer, one.type) == (row["question"], str(row["answer"]), "number")
        assert one.image is not None
        assert one.image.resolve() == (pictures / str(row["image"])).resolve()
        note = {} if ending == "parquet" else {"note": ""}
        assert one.columns == {"mood": row["mood"], **note}


def test_columns_of_other_names_and_a_question_out_of_columns(pictures: Path, tmp_path: Path) -> None:
    rows = [{"file": f"pics/{i}.png", "thing": f"ball {i}", "truth": "yes", "kind": "k"} for i in range(7)]
    table = write_rows(pictures / "rows.csv", rows)
    named = ("--image-column", "file", "--answer-column", "truth", "--type-column", "kind")
    done = made("csv", table, tmp_path / "out", *named, "--question", "Is there a {thing}?", "--split", "1,0,0")
    assert done.exit_code == 0, done.output
    assert set(parts(tmp_path / "out")) == {"train"}
    (first, *_) = everything(tmp_path / "out")
    assert (first.id, first.question, first.answer, first.type) == ("pics/0.png", "Is there a ball 0?", "yes", "k")
    assert dict(first.columns) == {"thing": "ball 0"}


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_folder_of_pictures_in_the_hubs_layout(pictures: Path, tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [{"file_name": f"{i}.png", "answer": f"a{i}"} for i in (*range(7), 3)]
    if name.endswith("csv"):
        write_rows(pictures / "pics" / name, rows)
    else:
        (pictures / "pics" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = made("folder", pictures, tmp_path / "out", "--question", "What is it?")
    assert done.exit_code == 0, done.output
    found = {one.id: one for one in everything(tmp_path / "out")}
    assert set(found) == {*(f"pics/{i}.png" for i in range(7)), "pics/3.png#2"}
    assert all(one.image is not None and one.image.is_file() for one in found.values())
    assert found["pics/3.png"].answer == found["pics/3.png#2"].answer == "a3"


def test_contrastive_pairs_are_written_side_by_side_and_never_torn(tmp_path: Path) -> None:
    rows = [{"question": f"Tell me of day {i}."} for i in range(30)]
    table = write_rows(tmp_path / "rows.csv", rows)
    ways = ("--contrast", "Sad=You are sad. {question}", "--contrast", "happy=You are happy. {question}")
    done = made("csv", table, tmp_path / "out", *ways, "--draw", 20)
    assert done.exit_code == 0, done.output
    told = read_data_folder(tmp_path / "out")
    assert told is not None
    assert told.contrast == {"sad": "You are sad. {question}", "happy": "You are happy. {question}"}
    assert told.samples == {"train": 24, "dev": 8, "test": 8}
    for samples in parts(tmp_path / "out").values():
        for sad, happy in zip(samples[::2], samples[1::2], strict=True):
            assert (sad.columns["contrast"], happy.columns["contrast"]) == ("sad", "happy")
            assert sad.id.removesuffix("/sad") == happy.id.removesuffix("/happy")
            assert sad.question.replace("sad", "happy") == happy.question


def test_data_lies_in_a_run_under_a_name(pictures: Path, tmp_path: Path) -> None:
    table, run = write_rows(pictures / "rows.csv", ROWS), tmp_path / "run"
    for more, name in (((), "rows"), (("--as", "again"), "again")):
        done = CliRunner().invoke(app, ["data", "csv", str(table), "--run", str(run), *more])
        assert done.exit_code == 0, done.output
        assert str(run / "data" / name) in done.stdout
        assert len(everything(run / "data" / name)) == len(ROWS)
    assert len(read_commands(run)) == 2
    for wrong in ((), ("--run", str(run), "--out", str(tmp_path / "out"))):
        refused = CliRunner().invoke(app, ["data", "csv", str(table), *wrong])
        assert refused.exit_code == 1
        assert "--out or --run: give one of" in refused.stderr


# ---- what is refused


@pytest.mark.parametrize(
    ("rows", "more", "complaint"),
    [
        ("a,b\n1,2\n", (), "has no column 'question'; its columns are a, b"),
        ("question,id\nq,1\nq,1\n", (), "line 3: has the id '1' of"),
        ("question,id\nq,\n", (), "line 2: has no id"),
        ("question\n\n \n", (), "line 3: has no question"),
        ("question,question\na,b\n", (), "two columns have one name"),
        ("question,a\nq\n", (), "line 2: has 1 fields; expected 2"),
        ('question\n"q\n', (), "is not CSV"),
        ("question\n", (), "holds no row"),
        ("question\nq\n", ("--question", "x"), "its column 'question' holds the questions"),
        ("a\n1\n", ("--question", "{b}?"), "line 2: has no 'b', which --question asks for"),
        ("question\nq\n", ("--image-column", "pic"), "has no column 'pic'"),
        ("question\nq\n", (), "1 pictures or questions are too few for a split into train, dev, test: dev would"),
        ("question,image\nq,absent.png\n", ("--split", "1,0,0"), "none of its 1 pictures is there"),
        ("question\nq\n", ("--split", "0.5,0.5"), "--split 0.5,0.5: expected the shares"),
        ("question\nq\n", ("--split", "1,1,-1"), "expected the shares"),
        ("question\nq\n", ("--split", "nan,0,1"), "expected the shares"),
        ("question\nq\n", ("--split", "1,0,0", "--prompt", "Hello."), "does not hold {question}"),
        ("question\nq\n", ("--contrast", "sad=You are sad."), "expected <name>=<text>"),
        ("question\nq\n", ("--contrast", "sad={question}"), "'sad' alone contrasts with nothing"),
        ("question\nq\n", ("--contrast", "a={question}", "--contrast", "A={question}"), "'a' is given twice"),
        (
            "question,contrast\nq,x\n",
            ("--split", "1,0,0", "--contrast", "a={question}", "--contrast", "b=b {question}"),
            "have a column 'contrast'",
        ),
    ],
)
def test_what_cannot_be_made_into_samples_is_one_sentence(
    tmp_path: Path, rows: str, more: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    done = made("csv", tmp_path / "rows.csv", tmp_path / "out", *more)
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_sources_of_the_wrong_kind_are_one_sentence(house: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "latin.csv").write_bytes("question\nfür\n".encode("latin-1"))
    out = tmp_path / "out"
    for form, source, more, complaint in (
        ("csv", pictures, (), "is no file; csv takes a CSV or TSV file"),
        ("pope", tmp_path / "latin.csv", (), "is a file; pope takes a folder"),
        ("folder", pictures, (), "holds no metadata.jsonl or metadata.csv"),
        ("parquet", tmp_path / "broken.parquet", (), "cannot be read as Parquet"),
        ("csv", tmp_path / "latin.csv", (), "is not UTF-8 text"),
        ("vqav2", house / "vqav2", ("--question", "x"), "vqav2 has its own"),
        ("vqav2", house / "vqav2", ("--id-column", "x"), "--id-column is for csv"),
        ("vqav2", house / "pope", (), "exactly one file must be called"),
    ):
        done = made(form, source, out, *more)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert complaint in done.stderr
    assert not out.exists()


def test_a_folder_that_holds_data_is_not_written_over(house: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.jsonl").write_text("mine")
    done = made("pope", house / "pope", tmp_path / "out")
    assert "holds test.jsonl already" in done.stderr
    assert (tmp_path / "out" / "test.jsonl").read_text() == "mine"


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = made("parquet", tmp_path / "rows.parquet", tmp_path / "out")
    assert done.exit_code == 1
    assert "pip install pyarrow, or save it as CSV" in done.stderr


def test_missing_pictures_are_counted(pictures: Path, tmp_path: Path) -> None:
    (pictures / "pics" / "3.png").unlink()
    done = made("csv", write_rows(pictures / "rows.csv", ROWS), tmp_path / "out")
    assert done.exit_code == 0
    assert "1 of 7 pictures are not there" in done.stderr
