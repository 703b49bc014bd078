"""Where commands write and read with --run, and what a run folder remembers of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.offline.cli.place import command_line, made_at, read_at, slug
from trimtab.offline.errors import DataError, SettingError


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tune", "c.yaml", "--run", "r"], "trimtab tune c.yaml --run r"),
        (["evaluate", "--api-key-env", "THE_KEY", "--max-tokens", "5"], "--api-key-env THE_KEY --max-tokens 5"),
        (["tune", "--serve-arg=--api-key", "--serve-arg", "sk-1"], "--serve-arg"),
        (["tune", "--serve-arg", "--api-key", "--serve-arg", "sk-1"], "--serve-arg"),
        (["tune", "--serve-arg", "--api-key=sk-1"], "--api-key="),
        (["tune", "--serve-arg=--api-key=sk-1"], "--serve-arg"),
        (["x", "--hf-token", "sk-1"], "--hf-token"),
        (["x", "--base-url", "http://me:sk-1@host:8000/v1?token=sk-1"], "http://host:8000/v1"),
        (["x", "--base-url=https://sk-1@host/v1"], "--base-url=https://host/v1"),
        (["x", "--prompt", "what? {question}"], "'what? {question}'"),
    ],
)
def test_a_command_line_is_kept_without_its_secrets(words: list[str], told: str) -> None:
    line = command_line(words)
    assert "sk-1" not in line
    assert told in line


def test_a_command_writes_to_the_path_or_under_a_name_and_never_to_both(tmp_path: Path) -> None:
    assert made_at(None, "states", tmp_path, "--out") == tmp_path
    assert made_at(tmp_path, "states", None, "--out", "a") == tmp_path / "states" / "a"
    assert made_at(tmp_path, "profiles", None, "--registry") == tmp_path / "profiles"
    assert made_at(tmp_path, None, None, "--findings") == tmp_path
    with pytest.raises(SettingError, match="--out or --run: give one of the two"):
        made_at(tmp_path, "states", tmp_path, "--out")
    with pytest.raises(SettingError, match="--out or --run: give one of them"):
        made_at(None, "states", None, "--out")
    for name in ("../a", "a/b", ".."):
        with pytest.raises(SettingError, match="name of one folder"):
            made_at(tmp_path, "states", None, "--out", name)


def test_a_command_reads_a_name_a_path_or_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "states" / "a").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "elsewhere").mkdir()
    assert read_at(run, "states", None, "STATES") == run / "states" / "a"
    assert read_at(run, "states", Path("a"), "STATES") == run / "states" / "a"
    assert read_at(run, "states", Path("elsewhere"), "STATES") == Path("elsewhere")
    assert read_at(None, "states", Path("a"), "STATES") == Path("a")
    with pytest.raises(SettingError, match="STATES: give the folder that `trimtab represent` made, or --run"):
        read_at(None, "states", None, "STATES")
    with pytest.raises(DataError, match="does not exist; give the folder that `trimtab represent` made"):
        read_at(None, "states", tmp_path / "none", "STATES")
    (run / "states" / "b").mkdir()
    with pytest.raises(DataError, match="several states; name one of a, b"):
        read_at(run, "states", None, "STATES")
    with pytest.raises(DataError, match="no states called 'c'"):
        read_at(run, "states", Path("c"), "STATES")


def test_a_rule_becomes_a_name() -> None:
    assert slug("predicts:man,woman") == "predicts-man-woman"
    assert slug("predicts:*") == "predicts-all"
    assert slug("../..") == "unnamed"
    assert len(slug("x" * 99)) == 40
