"""trimtab-serve says in one sentence what keeps it from serving."""

from __future__ import annotations

import importlib.metadata
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.plugin import serve

ROOT = Path(__file__).parents[2]
PROGRAM = ("-m", "trimtab.plugin.serve")


@pytest.fixture(autouse=True)
def _own_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_PLUGINS", "VLLM_TRIMTAB", "TRIMTAB_ADMIN_KEYS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.setenv(name, "")  # main writes to them; this puts them back
    monkeypatch.setenv("VLLM_PLUGINS", "trimtab")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


def one_sentence(error: str) -> str:
    """The last line, which is ours; vLLM may warn before it."""
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith("trimtab-serve: ")
    return last


def test_the_file_of_the_checkout_and_the_first_word_do_the_same() -> None:
    usage = "usage: trimtab-serve [serve] MODEL --steering-profiles DIR"
    for arguments in (
        [str(ROOT / "serve.py"), "some/model"],
        [*PROGRAM, "some/model"],
        [*PROGRAM, "serve", "m"],
        PROGRAM,
    ):
        finished = run(*arguments)
        assert finished.returncode == 2
        assert finished.stderr.startswith(usage)
        assert "--steering-profiles" in finished.stderr.splitlines()[-1]


def test_help_is_no_failure() -> None:
    finished = run(*PROGRAM, "--help")
    assert finished.returncode == 0
    assert "--steering-rows" in finished.stdout
    assert finished.stderr == ""


@pytest.mark.parametrize("layers", ["a", "1,", "1;2", ""])
def test_layers_that_are_no_numbers_are_a_usage_error(layers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.main(["some/model", "--steering-profiles", "profiles", "--steering-layers", layers])
    assert caught.value.code == 2
    assert "--steering-layers" in capsys.readouterr().err


def test_a_missing_folder_ends_the_real_program_with_one_sentence(tmp_path: Path, model_folder: Path) -> None:
    finished = run(*PROGRAM, str(model_folder), "--steering-profiles", str(tmp_path / "nowhere"))
    assert finished.returncode == 1
    assert "nowhere: is no folder" in one_sentence(finished.stderr)


def test_a_taken_port_is_one_sentence(
    model_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # vLLM sets it
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [str(model_folder), "--steering-profiles", str(folder), "--host", "127.0.0.1", "--port", port]
        assert serve.main(arguments) == 1
    assert f"port {port} is taken; give another --port" in one_sentence(capsys.readouterr().err)


def test_an_empty_folder_a_folder_with_another_models_profiles_and_a_folder_without_a_model(
    tmp_path: Path, model_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((model_folder / "config.json").read_text().replace("3", "5"))
    (other / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes())
    for model, profiles, message in (
        (model_folder, tmp_path / "empty", "empty: holds no profile"),
        (other, folder, "num layers 3 (this model: 5)"),
        (tmp_path / "empty", folder, "empty/config.json: is missing"),
    ):
        assert serve.main([str(model), "--steering-profiles", str(profiles)]) == 1
        assert message in one_sentence(capsys.readouterr().err)


def test_a_layer_that_the_model_lacks_and_too_few_rows(
    model_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value, message in (
        ("--steering-layers", "3", "layer 3 cannot be armed: the model has layers 0 to 2"),
        ("--steering-rows", "-1", "rows must be 0 or more, not -1"),
    ):
        arguments = [str(model_folder), "--steering-profiles", str(folder), f"{option}={value}"]
        assert serve.main(arguments) == 1
        assert message in one_sentence(capsys.readouterr().err)


def test_admin_keys_are_refused_beside_development_routes_and_are_no_secret_to_guess(
    model_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(model_folder), "--steering-profiles", str(folder)]
    monkeypatch.setenv("TRIMTAB_ADMIN_KEYS", "guessable")
    assert serve.main(arguments) == 1
    assert "an admin key has 9 characters" in one_sentence(capsys.readouterr().err)
    monkeypatch.setenv("TRIMTAB_ADMIN_KEYS", "k" * 32)
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    assert serve.main(arguments) == 1
    assert "VLLM_SERVER_DEV_MODE opens routes to anybody" in one_sentence(capsys.readouterr().err)


def test_a_desired_state_that_cannot_be_read_stops_the_start(
    model_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "desired.yaml"
    file.write_text("version: 7")
    arguments = [str(model_folder), "--steering-profiles", str(folder), "--steering-desired", str(file)]
    assert serve.main(arguments) == 1
    assert "desired.yaml: has version 7" in one_sentence(capsys.readouterr().err)


def test_what_is_imported_before_the_counters_folder_is_set_counts_nothing() -> None:
    """prometheus_client chooses how it counts when it is imported."""
    finished = run("-c", "import sys; import trimtab.plugin.control.begin; print('prometheus_client' in sys.modules)")
    assert finished.stdout == "False\n"


@pytest.mark.parametrize("seconds", ["0", "x", "-1", "nan"])
def test_a_refresh_that_is_no_time_is_a_usage_error(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.main(["some/model", "--steering-profiles", "profiles", f"--steering-refresh={seconds}"])
    assert caught.value.code == 2
    assert "--steering-refresh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "merged"),
    [
        ("", ["trimtab"]),
        ("trimtab", ["trimtab"]),
        ("other", ["other", "trimtab"]),
        (" a , trimtab,a,, b ", ["a", "trimtab", "b"]),
    ],
)
def test_an_operators_allow_list_is_kept_and_we_are_added(allowed: str, merged: list[str]) -> None:
    assert serve._plugins(allowed, "trimtab") == merged


def test_without_an_allow_list_everything_that_vllm_would_load_is_kept() -> None:
    merged = serve._plugins(None, "trimtab")
    assert "trimtab" in merged
    assert len(set(merged)) == len(merged)
    for group in ("vllm.general_plugins", "vllm.platform_plugins"):
        assert {point.name for point in importlib.metadata.entry_points(group=group)} <= set(merged)
