"""`trimtab ab check`: sample ratios from the log alone, in words, as an exit code and as metrics of a text file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from tests.reliability.exposed import PLAN, simulated
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError
from trimtab.offline.experiments import checked, textfile
from trimtab.offline.experiments.srm import mismatch
from trimtab.vectors.experiments import Exposure, read_plan

OTHER = PLAN.replace("  sweep:", "  dose:").replace("sweep-1", "dose-1")
WHOLE = read_plan(PLAN)


@pytest.fixture(scope="module")
def shown() -> list[Exposure]:
    return [one for one in simulated(WHOLE, "sweep", 8000) if isinstance(one, Exposure)]


def without_some(shown: Sequence[Exposure]) -> list[Exposure]:
    """As a replica leaves it that loses a third of one arm's units."""
    return [one for one in shown if one.assigned != "a08" or int(one.unit[:4], 16) % 3]


def check(folder: Path, shown: Sequence[Exposure], *options: object) -> Result:
    log = folder / "exposures.jsonl"
    log.write_text("".join(json.dumps(one.fields()) + "\n" for one in shown))
    return CliRunner().invoke(app, ["ab", "check", str(log), *map(str, options)])


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    assert all(family.documentation for family in families)
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_units_that_follow_the_weights_are_no_alarm(shown: list[Exposure], tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    told = check(tmp_path, shown, "--plan", tmp_path / "plan.yaml", "--textfile", tmp_path / "trimtab.prom")
    assert (told.exit_code, "follow the weights, p = " in told.stdout) == (0, True), told.output
    assert "do not" not in told.stdout
    found = samples((tmp_path / "trimtab.prom").read_text())
    arms = {one.unit: one.assigned for one in shown}
    units = [list(arms.values()).count(name) for name in ("control", "a04", "a08")]
    assert found == {
        ("trimtab_experiment_sample_ratio_p", "sweep"): mismatch(units, (1, 1, 1)),
        ("trimtab_experiment_units", "control", "sweep"): units[0],
        ("trimtab_experiment_units", "a04", "sweep"): units[1],
        ("trimtab_experiment_units", "a08", "sweep"): units[2],
    }
    assert (tmp_path / "trimtab.prom").stat().st_mode & 0o004, "node-exporter is another user"
    assert [path.name for path in tmp_path.glob("*.prom")] == ["trimtab.prom"]


@pytest.mark.parametrize("with_plan", [True, False])
def test_lost_units_end_with_3_and_a_p_that_fires_the_alert(
    shown: list[Exposure], tmp_path: Path, with_plan: bool
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    options: list[object] = ["--plan", tmp_path / "plan.yaml"] if with_plan else []
    told = check(tmp_path, without_some(shown), *options, "--textfile", tmp_path / "trimtab.prom")
    assert (told.exit_code, "do not follow the weights" in told.stdout) == (3, True), told.output
    assert samples((tmp_path / "trimtab.prom").read_text())["trimtab_experiment_sample_ratio_p", "sweep"] < 0.001


def test_each_experiment_is_told_for_itself(shown: list[Exposure]) -> None:
    plan = read_plan(PLAN.replace("    coverage: 1.0", "    range: [0, 0.5]\n    coverage: 1.0", 1))
    other = [one for one in simulated(read_plan(OTHER), "dose", 4000) if isinstance(one, Exposure)]
    found = {one.experiment: one for one in checked([*shown, *without_some(other)])}
    assert [found[name].alarm for name in ("sweep", "dose")] == [False, True]
    assert list(samples(textfile(list(found.values())))).count(("trimtab_experiment_units", "a08", "dose")) == 1
    assert [one.experiment for one in checked([*shown, *other], plan)] == ["sweep"]  # the other is of an earlier plan
    assert [one.experiment for one in checked([*shown, *other], experiment="dose")] == ["dose"]


def test_a_unit_counts_once_and_a_forced_request_not_at_all(shown: list[Exposure]) -> None:
    forced = [
        Exposure.model_validate(
            {**one.model_dump(), "exposure_id": f"exp-{i:032x}", "unit": f"{i:032x}", "forced": True}
        )
        for i, one in enumerate(shown[:2000])
    ]
    [alone], [beside] = checked(shown), checked([*shown, *shown, *forced])
    assert alone == beside


def test_a_new_phase_that_nobody_has_met_is_said(shown: list[Exposure]) -> None:
    with pytest.raises(DataError, match="holds no unit of an experiment of this plan"):
        checked(shown, read_plan(PLAN.replace("sweep-1", "sweep-2")))
