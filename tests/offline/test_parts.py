"""Large data: several processes share it, a draw stands for it, and no label fills the folder by itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.offline.worlds import write_data
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.states import LastPrompt, LayerStates, Predicts, ShardedStates, load_states, represent
from trimtab.offline.states.engine import Engine
from trimtab.offline.states.parts import part_of
from trimtab.offline.states.samples import read_samples
from trimtab.offline.states.store import load_background, open_manifest, verify_states
from trimtab.offline.states.subset import chosen
from trimtab.vectors.states import write_states_manifest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 40, pictured=True)


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def in_parts(reader: Reader, data: Path, out: Path, count: int) -> None:
    for number in range(1, count + 1):
        represent(reader, data, Predicts(), [1], out, part=(number, count), batch_size=1, max_new_tokens=8)


def rows(states: LayerStates | None) -> dict[tuple[str, int], tuple[str, int, float]]:
    assert states is not None
    said = zip(states.labels, states.tokens.tolist(), states.weights.tolist(), strict=True)
    return dict(zip(zip(states.sample_ids, states.positions.tolist(), strict=True), said, strict=True))


def stand_for(states: LayerStates) -> dict[str, float]:
    """How many positions the states of each label stand for together."""
    weights = zip(states.labels, states.weights.tolist(), strict=True)
    found: dict[str, float] = dict.fromkeys(states.labels, 0.0)
    for label, weight in weights:
        found[label] += weight
    return found


def test_the_parts_of_several_processes_are_read_as_one(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    represent(llava_reader, data, Predicts(), [1], whole, max_new_tokens=8)
    in_parts(llava_reader, data, parts, 3)
    for load in (load_states, load_background):
        assert rows(load(whole, 1)) == rows(load(parts, 1))
    one, several = load_states(whole, 1), load_states(parts, 1)
    order = [list(rows(several)).index(key) for key in rows(one)]
    np.testing.assert_allclose(one.values, several.values[order], atol=1e-4)
    blocks = list(ShardedStates(parts, 1))
    assert len(blocks) > 3
    assert sum((block.labels for block in blocks), ()) == several.labels
    assert len(ShardedStates(parts, 1)) == len(several.values)

    asked = verify_states(parts).request
    assert asked == open_manifest(whole).request.model_copy(update={"batch_size": 1, "shard_size": 8})
    for command in ("inspect", "verify"):
        shown = trimtab(command, parts)
        assert shown.exit_code == 0, shown.output
    made = trimtab("dictionary", parts, "-l", 1, "-k", 4, "--out", tmp_path / "concepts")
    assert made.exit_code == 0, made.output


def test_a_part_that_is_missing_unfinished_or_another_ones_is_named(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    in_parts(llava_reader, data, parts, 2)
    second = part_of(parts, 2, 2)
    whole = (second / "manifest.json").read_text()

    second.rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"part-2-of-2: is missing; .*--shard 2/2"):
        load_states(parts, 1)
    assert "part-2-of-2: is missing" in trimtab("verify", parts).stderr
    (tmp_path / "away").rename(second)

    unfinished = open_manifest(second)
    (second / "manifest.json").write_text(
        unfinished.model_copy(update={"shards": unfinished.shards[:1]}).model_dump_json()
    )
    with pytest.raises(DataError, match=r"part-2-of-2: holds 8 of 20 samples; finish it"):
        load_states(parts, 1)

    (second / "manifest.json").write_text(whole.replace('"max_new_tokens": 8', '"max_new_tokens": 9'))
    with pytest.raises(DataError, match=r"part-2-of-2: was made with another max new tokens than part-1-of-2"):
        load_states(parts, 1)
    (second / "manifest.json").write_text(whole)

    shard = second / "rows-00000.jsonl"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"part-2-of-2/rows-00000.jsonl: is not what was written"):
        verify_states(parts)

    part_of(parts, 1, 3).mkdir()
    with pytest.raises(DataError, match="holds parts of 2 and of 3"):
        load_states(parts, 1)


def test_a_part_is_resumed_as_that_part_alone(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    in_parts(llava_reader, data, tmp_path / "parts", 2)
    again = represent(
        llava_reader,
        data,
        Predicts(),
        [1],
        tmp_path / "parts",
        part=(1, 2),
        batch_size=1,
        max_new_tokens=8,
        resume=True,
    )
    assert again.request.part == (1, 2)
    with pytest.raises(SettingError, match="another seed"):
        represent(
            llava_reader, data, Predicts(), [1], tmp_path / "parts", part=(1, 2), batch_size=1, max_new_tokens=8,
            seed=3, resume=True,
        )  # fmt: skip
    for part in ((0, 2), (3, 2), (1, 41)):
        with pytest.raises(SettingError, match="i from 1 to n"):
            represent(llava_reader, data, Predicts(), [1], tmp_path / "none", part=part)
    refused = trimtab(
        "represent", llava_reader.folder, data, "--rule", "predicts:*", "-l", 1, "--out", tmp_path / "o", "--shard", "2"
    )
    assert (refused.exit_code, "write i/n" in refused.stderr) == (1, True)


def test_a_draw_has_the_share_of_each_type_and_is_the_seeds(data: Path) -> None:
    file = read_samples(data)
    drawn, again, other = (chosen(file, draw=10, seed=seed).samples for seed in (1, 1, 2))
    assert drawn == again
    assert drawn != other
    assert Counter(one.type for one in drawn) == {"number": 5, "other": 5}
    parts = [chosen(file, 10, (number, 3), 1).samples for number in (1, 2, 3)]
    assert sorted(one.id for part in parts for one in part) == sorted(one.id for one in drawn)


def test_a_drawn_sample_stands_for_as_many_of_its_type_as_the_file_has_for_each(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    for number, line in enumerate(lines):  # two of a type get one place of four, twice their share
        line["type"] = "rare" if number in (7, 31) else "common"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    weights = {one.type: one.weight for one in chosen(read_samples(data), draw=8).samples}
    assert weights == {"common": 38 / 7, "rare": 2 / 1}
    represent(llava_reader, data, LastPrompt(), [1], tmp_path / "out", draw=8, max_new_tokens=4)
    kept, beside = load_states(tmp_path / "out", 1), load_background(tmp_path / "out", 1)
    assert kept.weights.sum() == pytest.approx(40)
    assert beside is not None
    weight_of = dict(zip(kept.sample_ids, kept.weights.tolist(), strict=True))
    assert set(weight_of.values()) == set(weights.values())
    met = dict.fromkeys(beside.sample_ids, 0.0)
    for sample, weight in zip(beside.sample_ids, beside.weights.tolist(), strict=True):
        met[sample] += weight / weight_of[sample]
    assert all(count == pytest.approx(round(count)) and count >= 1 for count in met.values())


def test_parts_of_other_first_samples_are_no_parts_of_one(llama_reader: Reader, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 12, pictured=False)
    for number, limit in ((1, 10), (2, 11)):
        represent(llama_reader, data, LastPrompt(), [1], tmp_path / "out", part=(number, 2), limit=limit)
    with pytest.raises(DataError, match=r"part-2-of-2: was made with another limit than part-1-of-2; make all parts"):
        load_states(tmp_path / "out", 1)
    with pytest.raises(SettingError, match=r"another limit \(11, now 12\)"):
        represent(llama_reader, data, LastPrompt(), [1], tmp_path / "out", part=(2, 2), limit=12, resume=True)


def test_a_whole_and_parts_do_not_lie_in_one_folder(llama_reader: Reader, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4, pictured=False)
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    represent(llama_reader, data, LastPrompt(), [1], parts, part=(1, 2))
    represent(llama_reader, data, LastPrompt(), [1], whole)
    for resume in (False, True):
        with pytest.raises(DataError, match=r"parts: holds parts already \(part-1-of-2\).* or go on with --shard"):
            represent(llama_reader, data, LastPrompt(), [1], parts, resume=resume)
        with pytest.raises(DataError, match=r"whole: holds states of a run without --shard.*choose another folder"):
            represent(llama_reader, data, LastPrompt(), [1], whole, part=(1, 2), resume=resume)
        with pytest.raises(DataError, match="parts: holds parts of 2, not of 3; choose another folder"):
            represent(llama_reader, data, LastPrompt(), [1], parts, part=(1, 3), resume=resume)
    part_of(parts, 1, 2).rename(part_of(whole, 1, 2))
    with pytest.raises(DataError, match=r"whole: holds states and, beside them, parts of others \(part-1-of-2\)"):
        load_states(whole, 1)


def test_a_run_of_an_engine_goes_on_only_with_arguments_that_leave_states_as_they_are(
    llama: Path, llama_reader: Reader, tmp_path: Path
) -> None:
    data, out = write_data(tmp_path / "data", 4, pictured=False), tmp_path / "out"
    whole = represent(llama_reader, data, LastPrompt(), [1], out)
    asked = {"max_model_len": 512, "hf_overrides": {"rope_theta": 1.0}}
    given = whole.request.model_copy(update={"engine": "vllm", "engine_args": asked})
    write_states_manifest(out, whole.model_copy(update={"request": given}))

    def go_on(arguments: dict[str, Any]) -> None:
        represent(Engine(llama, arguments=arguments), data, LastPrompt(), [1], out, resume=True)

    go_on({**asked, "gpu_memory_utilization": 0.2, "tensor_parallel_size": 2})  # it is whole: no engine is started
    for other in ({}, {**asked, "max_model_len": 256}, {**asked, "quantization": "fp8"}):
        with pytest.raises(SettingError, match=r"another engine args \(\{'max_model_len': 512, .*now"):
            go_on(other)


def test_no_label_has_more_states_than_asked_for_also_when_resumed(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    asked = {"batch_size": 1, "max_new_tokens": 8, "most_per_label": 3, "draw": 30, "seed": 5}
    free, capped, broken = (tmp_path / name for name in ("free", "capped", "broken"))
    represent(llava_reader, data, Predicts(), [1], free, **{**asked, "most_per_label": None})  # type: ignore[arg-type]
    represent(llava_reader, data, Predicts(), [1], capped, **asked)  # type: ignore[arg-type]
    every, some = load_states(free, 1), load_states(capped, 1)
    assert max(Counter(every.labels).values()) > 3
    kept, seen = [], Counter[str]()
    for row, label in enumerate(every.labels):
        seen[label] += 1
        kept += [row] if seen[label] <= 3 else []
    assert (some.labels, some.sample_ids) == (every.at(np.array(kept)).labels, every.at(np.array(kept)).sample_ids)
    assert rows(load_background(capped, 1)) == rows(load_background(free, 1))
    assert stand_for(some) == pytest.approx(stand_for(every)), "together they stand for all that were there"
    skipped = [skip for skip in open_manifest(capped).skipped if "have 3 states each already" in skip.reason]
    assert {skip.id for skip in skipped} == set(every.sample_ids) - set(some.sample_ids)

    calls = 0

    def interrupt(block: object, inputs: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 90:
            raise KeyboardInterrupt

    handle = llava_reader.blocks[0].register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            represent(llava_reader, data, Predicts(), [1], broken, **asked)  # type: ignore[arg-type]
    finally:
        handle.remove()
    assert 0 < open_manifest(broken).done < 30
    represent(llava_reader, data, Predicts(), [1], broken, **asked, resume=True)  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in broken.iterdir()} == {
        path.name: path.read_bytes() for path in capped.iterdir()
    }
