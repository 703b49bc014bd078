"""What a server says about its model at start: proven, not proven yet, or what a comparison found."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from trimtab.plugin.model import proven
from trimtab.plugin.model.proven import Proven, implementation_of, say, status

TABLE = {
    "ProvenForCausalLM": {"status": "proven", "implementation": "native", "reason": ""},
    "BothForCausalLM": {
        "status": "proven",
        "implementation": "native",
        "reason": "",
        "by_transformers": {"status": "differs", "reason": "drops a feature"},
    },
    "BackendForCausalLM": {"status": "proven", "implementation": "transformers", "reason": ""},
    "RefusedForCausalLM": {"status": "refused", "implementation": "native", "reason": "several streams"},
}


@pytest.fixture(autouse=True)
def _table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "proven.json").write_text(json.dumps(TABLE))
    monkeypatch.setattr(proven, "_TABLE", tmp_path / "proven.json")
    proven._table.cache_clear()
    yield
    proven._table.cache_clear()


def test_a_status_is_of_an_architecture_and_of_the_code_that_runs_it() -> None:
    assert status("ProvenForCausalLM") == Proven("proven")
    assert status("ProvenForCausalLM", "transformers") is None
    assert status("BothForCausalLM", "transformers") == Proven("differs", "drops a feature")
    assert status("BackendForCausalLM") is None
    assert status("BackendForCausalLM", "transformers") == Proven("proven")
    assert status("NobodyForCausalLM") is None


def test_without_a_table_nothing_is_proven(tmp_path: Path) -> None:
    (tmp_path / "proven.json").unlink()
    assert status("ProvenForCausalLM") is None


Backend = type("Backend", (nn.Module,), {"__module__": "vllm.model_executor.models.transformers.causal"})


@pytest.mark.parametrize(
    ("architecture", "model", "level", "words"),
    [
        ("ProvenForCausalLM", nn.Linear(1, 1), logging.INFO, "ProvenForCausalLM is proven"),
        ("BothForCausalLM", Backend(), logging.WARNING, r"differs from transformers .* \(drops a feature\)"),
        ("BackendForCausalLM", Backend(), logging.INFO, "BackendForCausalLM is proven"),
        ("BackendForCausalLM", nn.Linear(1, 1), logging.WARNING, "not proven yet: .* trimtab-serve doctor the/model"),
        ("NobodyForCausalLM", nn.Linear(1, 1), logging.WARNING, "not proven yet"),
        ("RefusedForCausalLM", nn.Linear(1, 1), logging.WARNING, r"was refused .* \(several streams\)"),
    ],
)
def test_one_line_says_which_it_is_and_what_to_do(
    architecture: str, model: nn.Module, level: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=SimpleNamespace(architectures=[architecture]), model="the/model")
    )
    with caplog.at_level(logging.INFO, logger="vllm.trimtab"):
        say(model, config)
    (record,) = caplog.records
    assert record.levelno == level
    assert re.search(words, record.getMessage())


def test_the_transformers_backend_is_told_by_where_its_classes_are() -> None:
    assert implementation_of(Backend()) == "transformers"
    assert implementation_of(nn.Linear(1, 1)) == "native"
