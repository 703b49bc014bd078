"""Commands that cannot be done: one sentence, exit code 1, and nothing begun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trimtab.offline.cli.app import app


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("represent", "{study}/absent", "{study}/data/data.jsonl", "--rule", "last-prompt", "-l", "0"), "does not exist"),
    (("represent", "{llava}", "{study}/absent.jsonl", "--rule", "last-prompt", "-l", "0"), "does not exist"),
    (("represent", "{llava}", "{study}/data/data.jsonl", "--rule", "last", "-l", "0"), "unknown rule"),
    (("represent", "{llava}", "{study}/data/data.jsonl", "--rule", "last-prompt", "-l", "4"), "0 to 3"),
    (("represent", "{study}/data", "{study}/data/data.jsonl", "--rule", "last-prompt", "-l", "0"), "config.json"),
    (("dictionary", "{study}/data", "-l", "0"), "trimtab represent"),
    (("dictionary", "{study}/reps", "-l", "2"), "layers there are 1, 3"),
    (("dictionary", "{study}/reps", "-l", "3", "-k", "100000"), "k is 100000"),
    (("profile", "{study}/reps", "--kind", "fine", "-m", "a=b", "--name", "x"), "needs a --dictionary"),
    (("profile", "{study}/reps", "--kind", "coarse", "-m", "a=b", "--name", "x"), "needs --layer"),
    (("profile", "{study}/reps", "-m", "a=b", "--name", "x"), "needs --layer (coarse) or --dictionary (fine)"),
    (("profile", "{study}/reps", "--kind", "coarse", "-d", "{study}/means", "-m", "a=b", "--name", "x"), "takes no"),
    (("profile", "{study}/reps", "--kind", "coarse", "-l", "3", "-m", "a", "--name", "x"), "yes=no"),
    (("profile", "{study}/reps", "--kind", "coarse", "-l", "3", "-m", "a=b", "--name", "x"), "no state stands for 'a'"),
    (
        ("profile", "{study}/reps", "--kind", "coarse", "-l", "3", "-m", "a=b", "--name", "x", "--alpha-max", "0.5"),
        "does not hold",
    ),
    (("import", "{study}/data/data.jsonl", "--model", "{llava}", "--name", "x"), "--format"),
    (("inspect", "{study}/data"), "no profile, dictionary, folder of states or of findings"),
    (("verify", "{study}/absent"), "absent: does not exist; give a profile"),
    (("inspect", "{study}/data/data.jsonl"), "data.jsonl: is no folder; give a profile"),
]


@pytest.mark.parametrize(("arguments", "complaint"), WRONG)
def test_what_is_wrong_is_one_sentence_and_exit_code_one(
    study: Path, llava: Path, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    filled = [part.format(study=study, llava=llava) for part in arguments]
    if arguments[0] not in ("inspect", "verify"):
        filled += ["--registry" if arguments[0] in ("profile", "import") else "--out", str(tmp_path / "out")]
    result = trimtab(*filled)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("trimtab: ")]) == 1
    assert result.stderr.splitlines()[-1].startswith("trimtab: ")
    assert not (tmp_path / "out").exists()


ASKED = ("--base-url", "http://localhost/v1", "--served-model-name", "m", "--out", "{out}")
ABSENT: list[tuple[str, ...]] = [
    ("represent", "{absent}", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("represent", "{llava}", "{absent}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("dictionary", "{absent}", "-l", "3", "--out", "{out}"),
    ("choose-k", "{absent}", "-l", "3", "-k", "2", "--findings", "{out}"),
    ("choose-k", "{reps}", "-l", "3", "-k", "2", "--findings", "{out}", "--model", "{absent}"),
    ("ground", "{absent}", "{means}", "--model", "{llava}", "--findings", "{out}"),
    ("ground", "{reps}", "{absent}", "--model", "{llava}", "--findings", "{out}"),
    ("ground", "{reps}", "{means}", "--model", "{absent}", "--findings", "{out}"),
    ("ground", "{reps}", "{means}", "--model", "{llava}", "--findings", "{out}", "--data", "{absent}"),
    ("ground", "{reps}", "{means}", "--model", "{llava}", "--findings", "{out}", "--clip", "{absent}"),
    ("shift", "{absent}", "{llava}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("shift", "{llava}", "{absent}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("shift", "{llava}", "{llava}", "--data", "{absent}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("watch", "{llava}", "{absent}", "--data", "{data}", "--rule", "last-prompt", "-l", "0", "--out", "{out}"),
    ("profile", "{absent}", "-l", "3", "-m", "a=b", "--name", "x", "--registry", "{out}"),
    ("profile", "{reps}", "-d", "{absent}", "-m", "a=b", "--name", "x", "--registry", "{out}"),
    ("relabel", "{absent}", "--by", "truth", "--data", "{data}", "--out", "{out}"),
    ("relabel", "{reps}", "--by", "truth", "--data", "{absent}", "--out", "{out}"),
    ("shift-profile", "{absent}", "--name", "x", "--registry", "{out}"),
    ("import", "{absent}", "--model", "{llava}", "--name", "x", "--registry", "{out}"),
    ("import", "{data}", "--model", "{absent}", "--name", "x", "--registry", "{out}"),
    ("evaluate", "pope", "{absent}", *ASKED),
    ("evaluate", "pope", "{reps}", *ASKED, "--against", "{absent}"),
    ("evaluate", "pope", "{reps}", *ASKED, "--images", "{absent}"),
    ("report", "{absent}"),
    ("inspect", "{absent}"),
    ("verify", "{absent}"),
    ("verify", "{means}", "--model", "{absent}"),
]


@pytest.mark.parametrize("arguments", ABSENT, ids=lambda given: f"{given[0]}-{given.index('{absent}')}")
def test_what_is_not_there_is_said_before_anything_else_happens(
    study: Path, llava: Path, tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.offline.models.reader.Reader.__init__", _never)
    monkeypatch.setattr("trimtab.offline.states.store.open_manifest", _never)
    places = {"absent": tmp_path / "absent", "data": study / "data" / "data.jsonl", "llava": llava,
              "reps": study / "reps", "means": study / "means", "out": tmp_path / "out"}  # fmt: skip
    result = trimtab(*(part.format(**places) for part in arguments))
    assert result.exit_code == 1
    assert re.fullmatch(rf"trimtab: {tmp_path}/absent: does not exist; give .+\n", result.stderr)
    assert not (tmp_path / "out").exists()


def _never(*_: object, **__: object) -> None:
    raise AssertionError("something slow was begun")


@pytest.mark.parametrize("limit", ["-1", "0"])
def test_a_limit_that_asks_for_nothing_cannot_be_read(study: Path, llava: Path, tmp_path: Path, limit: str) -> None:
    asked = ("represent", llava, study / "data" / "data.jsonl", "--rule", "last-prompt", "-l", 0, "--limit", limit)
    result = trimtab(*asked, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--limit" in result.stderr
