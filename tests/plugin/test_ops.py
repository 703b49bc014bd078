"""The dashboard and the alerts ask for metrics and labels that there are. Their shapes; promtool tries the rules."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from vllm.v1.metrics import loggers

from trimtab.offline.experiments.ratios import METRICS as OF_LOGS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
BOARD: dict[str, Any] = json.loads((ROOT / "ops/grafana/trimtab.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
TESTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{f"{p['title']} {t['refId']}": t["expr"] for p in PANELS for t in p["targets"]},
    **{rule["alert"]: rule["expr"] for rule in RULES},
}
OF_SCRAPES = {"job", "instance"}


def labels_by_metric() -> dict[str, set[str]]:
    """The metrics of trimtab, as queries spell them, with their labels."""
    for module in (
        "http.metrics",
        "http.versions",
        "control.audit",
        "control.rollout",
        "control.refresh",
        "runners.concepts",
    ):
        importlib.import_module(f"trimtab.plugin.{module}")
    found: dict[str, set[str]] = {}
    for metric in {id(metric): metric for metric in REGISTRY._names_to_collectors.values()}.values():
        name, kind = getattr(metric, "_name", ""), getattr(metric, "_type", "")
        if name.startswith("trimtab_"):
            labels = set(metric._labelnames)  # type: ignore[attr-defined]
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
            found |= {name + end: labels | ({"le"} if end == "_bucket" else set()) for end in ends}
    return found


METRICS = labels_by_metric() | {name: set(labels) for name, (labels, _) in OF_LOGS.items()}


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of a query, with the labels that its selector names."""
    for name, _, selector in re.findall(r"\b((?:trimtab|vllm)[:_]\w+)(\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[!=]", selector))


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_a_query_asks_for_what_there_is(title: str) -> None:
    expression = EXPRESSIONS[title]
    grouped = {
        label for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in re.split(r"[,\s]+", by) if label
    }
    there: set[str] = set(OF_SCRAPES)
    for name, selected in asked(expression):
        if name.startswith("vllm:"):
            assert re.sub("_(bucket|sum|count|total)$", "", name) in inspect.getsource(loggers)
            there |= {"model_name", "le"}
            continue
        assert name in METRICS, f"{title} asks for {name}"
        assert selected <= METRICS[name] | OF_SCRAPES, f"{title}: {name} has no label {selected - METRICS[name]}"
        there |= METRICS[name]
    assert grouped <= there, f"{title} groups by {grouped - there}"
    assert list(asked(expression)), title


def test_each_metric_is_explained_and_watched() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    watched = {name for expression in EXPRESSIONS.values() for name, _ in asked(expression)}
    for name in METRICS:
        base = re.sub("_(bucket|sum|count)$", "", name)
        assert f"`{base}" in page, f"docs/operating.md does not explain {base}"
    unwatched = {name for name in METRICS if not name.endswith(("_sum", "_count"))} - watched
    assert f"each of the {len(PANELS)} panels had numbers" in page
    assert f"takes all {len(RULES)} rules" in page
    quiet = {"trimtab_profile_staged_version", "trimtab_served_version", "trimtab_profile_disabled"}
    assert unwatched <= quiet | {"trimtab_experiment_units"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert max(Counter(panel["id"] for panel in BOARD["panels"]).values()) == 1
    for one, other in combinations((panel["gridPos"] for panel in BOARD["panels"]), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_board_is_complete_by_itself() -> None:
    variables = [variable["name"] for variable in BOARD["templating"]["list"]]
    assert variables[:2] == ["DS_PROMETHEUS", "model_name"]  # as vLLM's own boards call them
    used = {name for text in EXPRESSIONS.values() for name in re.findall(r"\$(\w+)", text)} - {"__rate_interval"}
    assert used <= set(variables)
    for panel in PANELS:
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_each_alert_is_tried_firing_and_says_what_to_do() -> None:
    names = [rule["alert"] for rule in RULES]
    tried = [case for test in TESTS for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == set(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"`{rule['alert']}`" in (ROOT / "docs" / "operating.md").read_text()


@pytest.mark.slow
def test_promtool_takes_rules_and_configuration() -> None:
    """Needs promtool on the PATH: it comes with Prometheus (Debian: `apt-get install prometheus`)."""
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is not installed; it comes with Prometheus"
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
