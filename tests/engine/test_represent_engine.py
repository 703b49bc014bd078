"""`trimtab represent --engine vllm` writes the folder that `--engine transformers` writes; three engines start here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner, Result

from examples.tinyworld.data import write_split
from tests.architectures.table import build
from tests.ctrl_c import heed_ctrl_c
from tests.engine.engine import ROOT, SMALL
from tests.offline.odd_pictures import ODD
from tests.offline.worlds import save_llama, write_data
from trimtab.offline.cli.app import app
from trimtab.offline.states import load_states
from trimtab.offline.states.store import load_background, open_manifest
from trimtab.vectors.tasks import MODULE

pytestmark = pytest.mark.engine

LAYERS = (2, 5)
SHARD = 32
ENGINE = ("--engine", "vllm", "--engine-args", '{"enforce_eager": true, "max_model_len": 512, "block_size": 32}')
ASKED = ("--rule", "predicts:red,blue,two,three,yes,no", "--batch-size", SHARD // 8, "--max-new-tokens", 12)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions and captions, odd pictures, questions without one, and what neither engine can read."""
    folder = tmp_path_factory.mktemp("asked")
    write_split(folder / "dev", "dev", 6, seed=3)
    samples = [
        {**json.loads(line), "image": f"dev/{json.loads(line)['image']}"}
        for file in ("vqa", "captions")
        for line in (folder / "dev" / f"{file}.jsonl").read_text().splitlines()
    ]
    for name, content in ODD.items():
        (folder / name).write_bytes(content())
        samples.append({"id": name, "question": "how many balls?", "image": name})
    samples += [{"id": f"text-{n}", "question": question} for n, question in enumerate(("is it red?", "two balls"))]
    (folder / "torn.png").write_bytes(ODD["rgba.png"]()[:60])
    samples += [{"id": name, "question": "who?", "image": name} for name in ("torn.png", "absent.png")]
    samples.append({"id": "long", "question": "red " * 2000})
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def command(model: Path, data: Path, out: Path, *more: object) -> list[str]:
    layers = [part for layer in LAYERS for part in ("-l", layer)]
    return [str(part) for part in ("represent", model, data, *layers, "--dtype", "float32", "--out", out, *more)]


def engines() -> list[psutil.Process]:
    """The processes of engines that this one or its children have started."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if MODULE in " ".join(one.cmdline())]


def represent(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def until(true: object, seconds: float) -> None:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def assert_equal_states(ours: Path, theirs: Path, layer: int, but: str = "") -> None:
    """Both folders hold the same states of a layer, but for those of one sample in theirs."""
    for load in (load_states, load_background):
        a, b = load(ours, layer), load(theirs, layer)
        assert a is not None
        assert b is not None
        b = b.at(np.array([row for row, name in enumerate(b.sample_ids) if name != but]))
        assert len(a.values) > 20
        assert (a.sample_ids, a.labels) == (b.sample_ids, b.labels)
        for name in ("positions", "tokens", "weights"):
            assert getattr(a, name).tolist() == getattr(b, name).tolist()
        scale = np.linalg.norm(a.values, axis=1) * np.linalg.norm(b.values, axis=1)
        assert ((a.values * b.values).sum(axis=1) / scale >= 0.9999).all()
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=2e-3)


def test_an_interrupted_run_goes_on_to_the_folder_that_transformers_writes(
    model: Path, data: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "vllm", tmp_path / "transformers"
    asked = command(model, data, ours, *ASKED, *ENGINE)
    running = subprocess.Popen(
        [sys.executable, "-m", "trimtab.offline.cli", *asked],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert running.stderr is not None
    try:
        until(lambda: running.poll() is not None or (ours / "rows-00000.jsonl").exists(), 240)
        assert len(engines()) == 1
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert running.returncode not in (0, None), said
    assert "samples; run the same command with --resume to go on" in said
    assert engines() == []
    assert 0 < open_manifest(ours).done < open_manifest(ours).request.samples

    resumed = represent(*asked, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert engines() == []
    written = represent(*command(model, data, theirs, *ASKED))
    assert written.exit_code == 0, written.output

    for layer in LAYERS:
        assert_equal_states(ours, theirs, layer, but="long")
    mine, twin = (open_manifest(folder) for folder in (ours, theirs))
    answers = [[(folder / f"{shard.name}.jsonl").read_text() for shard in mine.shards] for folder in (ours, theirs)]
    assert answers[0][:-1] == answers[1][:-1], "the last shard has the question that is too long"
    changed = {"engine": "vllm", "engine_args": {"max_model_len": 512}}
    assert mine.request == twin.request.model_copy(update=changed)
    assert "vllm" in " ".join(mine.versions)
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    reasons = {skip.id: skip.reason for skip in mine.skipped}
    assert reasons.pop("long").startswith("the engine refuses it (")
    assert reasons == {skip.id: skip.reason for skip in twin.skipped if skip.id != "long"}
    assert {"torn.png", "absent.png"} <= reasons.keys()

    other = represent(*command(model, data, ours, *ASKED), "--resume")
    assert other.exit_code == 1
    assert "another engine (vllm, now None)" in other.stderr


def test_a_model_that_reads_text_alone_gives_the_states_of_transformers(tmp_path: Path) -> None:
    text, data = save_llama(tmp_path / "text", heads=1), write_data(tmp_path / "data", 60, pictured=False)
    folders = []
    for name, more in (("vllm", (*ENGINE[:3], '{"enforce_eager": true, "max_model_len": 256}')), ("transformers", ())):
        folders.append(tmp_path / name)
        asked = ("represent", text, data, "-l", 1, "-l", 3, "--rule", "predicts:*", "--max-new-tokens", 8,
                 "--batch-size", 4, "--dtype", "float32", "--out", folders[-1], *more)  # fmt: skip
        written = represent(*map(str, asked))
        assert written.exit_code == 0, written.output
    for layer in (1, 3):
        assert_equal_states(folders[0], folders[1], layer)
    ours, theirs = map(open_manifest, folders)
    assert ours.skipped == theirs.skipped
    assert ours.request.engine_args == {"max_model_len": 256}
    assert engines() == []


def test_an_engine_that_dies_is_one_sentence_and_leaves_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    asked = command(model, data, tmp_path / "out", *ASKED, *ENGINE)
    running = subprocess.Popen(
        [sys.executable, "-m", "trimtab.offline.cli", *asked], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        until(engines, 120)
        os.kill(engines()[0].pid, signal.SIGKILL)
        said = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert running.returncode == 1
    last = said.splitlines()[-1]
    assert f"{model}: vLLM's engine was killed by SIGKILL" in last
    assert engines() == []


def test_a_model_that_the_plugin_refuses_is_one_sentence(tmp_path: Path) -> None:
    build("Gemma3nForCausalLM", tmp_path / "model")  # four streams
    data = write_data(tmp_path / "data", 4, pictured=False)
    asked = ("represent", tmp_path / "model", data, "-l", 1, "--rule", "last-prompt", "--out", tmp_path / "o", *ENGINE)
    refused = represent(*map(str, asked))
    assert refused.exit_code == 1
    assert "trimtab cannot" in refused.stderr.splitlines()[-1]
    assert "Gemma3n" in refused.stderr.splitlines()[-1]
    assert engines() == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--engine", "vllm", "--device", "cpu"), "--device is for --engine transformers"),
        (("--engine-args", '{"block_size": 32}'), "--engine-args are for --engine vllm"),
        (("--engine", "vllm", "--engine-args", "[]"), "must be a JSON object"),
        (("--engine", "vllm", "--engine-args", '{"dtype": "half"}'), "give MODEL and --dtype instead"),
    ],
)
def test_options_of_the_other_engine_are_refused(
    model: Path, data: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    refused = represent(*command(model, data, tmp_path / "out", *ASKED, *more))
    assert refused.exit_code == 1
    assert message in refused.stderr
