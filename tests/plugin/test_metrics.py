"""What /metrics shows: bounded labels, numbers that add up over processes, digests that two replicas can compare."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tests.plugin.policies import small_registry
from tests.plugin.rolling import Rolling, run
from tests.plugin.test_experiments import POLICY, plan
from trimtab.plugin.control import served
from trimtab.plugin.control.finished import About, Finish
from trimtab.plugin.control.generation import Generation
from trimtab.plugin.control.served import Served
from trimtab.plugin.http import metrics
from trimtab.plugin.http.versions import Versions, number_of
from trimtab.plugin.requests.refused import REASONS, reason_of
from trimtab.vectors import ModelIdentity, Profile, save_profile
from trimtab.vectors.dose import largest_dose
from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError
from trimtab.vectors.experiments import UnitKey, read_plan
from trimtab.vectors.experiments.unit import UNIT_KEY

LABELS = {"profile", "experiment", "arm", "reason", "le", "rule", "outcome", "action", "result", "log"}
FINISH = Finish("stop", 7, 3, 4, queue_s=0.1, first_token_s=0.3, per_token_s=0.02, e2e_s=1.0)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def numbers(profile: str, experiment: str = "", arm: str = "") -> dict[str, float]:
    who = {"profile": profile, "experiment": experiment, "arm": arm}
    return {
        "ended": value("trimtab_finished_total", **who, reason="stop"),
        "prompt": value("trimtab_prompt_tokens_total", **who),
        "cached": value("trimtab_cached_tokens_total", **who),
        "generated": value("trimtab_generated_tokens_total", **who),
        "first": value("trimtab_time_to_first_token_seconds_count", **who),
        "first seconds": value("trimtab_time_to_first_token_seconds_sum", **who),
        "each": value("trimtab_time_per_output_token_seconds_count", **who),
    }


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: round(after[name] - before[name], 6) for name in after}


ONE = {"ended": 1, "prompt": 7, "cached": 4, "generated": 3, "first": 1, "first seconds": 0.3, "each": 1}
NOTHING = dict.fromkeys(ONE, 0)


def test_a_request_counts_under_its_profile_and_arm(coarse: Profile) -> None:
    before, elsewhere = numbers("polite", "e", "a08"), numbers("polite")
    metrics.count_finish(About(((coarse, 0.5),), "e", "a08", "exp-1"), FINISH)
    assert grown(before, numbers("polite", "e", "a08")) == ONE
    assert grown(elsewhere, numbers("polite")) == NOTHING


def test_a_request_of_several_profiles_counts_under_each(coarse: Profile, fine: Profile) -> None:
    before = {name: numbers(name) for name in ("polite", "gender-neutral", "none")}
    metrics.count_finish(About(((coarse, 0.5), (fine, 1.0))), FINISH)
    assert grown(before["polite"], numbers("polite")) == ONE
    assert grown(before["gender-neutral"], numbers("gender-neutral")) == ONE
    assert grown(before["none"], numbers("none")) == NOTHING


def test_an_unsteered_request_counts_under_none_with_its_arm() -> None:
    before = numbers("none", "e", "control")
    metrics.count_finish(About((), "e", "control", "exp-1"), FINISH)
    assert grown(before, numbers("none", "e", "control")) == ONE


def test_times_that_nobody_knows_are_not_counted_as_zeros() -> None:
    before = numbers("none")
    metrics.count_finish(About(()), Finish("stop", 7, 3, 4))
    assert grown(before, numbers("none")) == ONE | {"first": 0, "first seconds": 0, "each": 0}


def test_the_dose_is_that_of_the_strength_whatever_its_sign(with_norms: Profile) -> None:
    dose = largest_dose(with_norms, 0.5)
    assert dose is not None
    before = value("trimtab_relative_dose_ratio_sum", profile=with_norms.name)
    metrics.count_finish(About(((with_norms, -0.5),)), FINISH)
    assert value("trimtab_relative_dose_ratio_sum", profile=with_norms.name) - before == pytest.approx(dose)


@pytest.fixture
def with_norms(coarse: Profile) -> Profile:
    norms = {layer: one.model_copy(update={"hidden": 8.0}) for layer, one in coarse.manifest.norms.items()}
    manifest = coarse.manifest.model_copy(update={"norms": norms})
    return Profile(manifest, coarse.tensors)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnknownProfileError("polit", ["polite"]), "unknown_profile"),
        (UnknownProfileError("polit", ["polite"], param="model"), "unknown_profile"),
        (AlphaError("too large"), "alpha"),
        (RequestError("too much", param="steering.alpha"), "alpha"),
        (RequestError("not you", status=403), "policy"),
        (RequestError("not now", status=503), "unavailable"),
        (RequestError("no unit", param="steering.unit"), "experiment"),
        (RequestError("what?"), "malformed"),
    ],
    ids=str,
)
def test_a_refusal_is_counted_under_its_reason(error: RequestError, reason: str) -> None:
    assert reason_of(error) == reason


@given(param=st.text(), status=st.integers(400, 599))
def test_no_client_makes_a_label(param: str, status: int) -> None:
    assert reason_of(RequestError("no", param=param, status=status)) in REASONS


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_is_shown_by_its_first_48_bits_exactly(digest: bytes) -> None:
    assert int(float(number_of(digest.hex()))) == int.from_bytes(digest[:6])


def test_what_is_served_is_shown_and_what_is_gone_is_zero(coarse: Profile, fine: Profile) -> None:
    show = Versions(SimpleNamespace(additional_config={}))

    def shown(generation: Generation) -> tuple[float, ...]:
        known = {profile.content_digest: profile for profile in (coarse, fine)}
        show(generation, Served.of(generation, known.__getitem__))
        return (
            value("trimtab_generation"),
            value("trimtab_profile_version", profile="polite"),
            value("trimtab_profile_version", profile="gender-neutral"),
            value("trimtab_profile_disabled", profile="polite"),
        )

    both = Generation.first([coarse, fine])
    digests = (int(coarse.digest[:12], 16), int(fine.digest[:12], 16))
    assert shown(both) == (1, *digests, 0)
    assert shown(both.without("polite", "it is rude")) == (2, *digests, 1)
    assert shown(both.unloaded("polite")) == (2, 0, digests[1], 0)
    assert value("trimtab_served_version") == int(both.unloaded("polite").digest[:12], 16)


@pytest.fixture
def _forgotten() -> Iterator[None]:
    yield
    served.observers.clear()


@pytest.mark.usefixtures("_forgotten")
def test_policy_plan_and_unit_key_are_shown_and_a_policy_that_cannot_be_read_as_none(
    model: ModelIdentity, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNIT_KEY, "a unit key of thirty-two characters")
    for profile in small_registry(model).values():
        save_profile(profile, tmp_path / "profiles" / profile.name)
    files = {name: tmp_path / f"{name}.yaml" for name in ("policy", "experiments")}
    files["policy"].write_text(POLICY)
    files["experiments"].write_text(plan())
    named: dict[str, Any] = {**files}
    server = Rolling(tmp_path / "profiles", model_folder, tmp_path / "state", **named)
    Versions(server.vllm_config).begin()

    def shown() -> list[float]:
        return [value(f"trimtab_{name}") for name in ("policy_version", "experiments_version", "unit_key_version")]

    key = int(UnitKey(os.environ[UNIT_KEY]).fingerprint[:12], 16)
    policy = int(hashlib.sha256(POLICY.encode()).hexdigest()[:12], 16)
    assert shown() == [policy, int(read_plan(plan()).digest[:12], 16), key]
    assert value("trimtab_policy_unmet") == 0
    run(server.rollout.unload("safe", "me"))
    served.served(server.vllm_config)
    assert value("trimtab_policy_unmet") == 1
    broken = Generation.model_validate({**server.state.read().model_dump(), "counter": 9, "policy": "0" * 64})
    server.state.publish(broken)
    assert served.served(server.vllm_config) is not None  # what needs no policy is still told what is served
    assert shown() == [int("0" * 12, 16), 0, 0]


def test_buckets_are_those_of_vllm() -> None:
    if importlib.util.find_spec("vllm.v1.metrics.buckets") is None:
        pytest.skip("this vLLM does not name its buckets")
    from vllm.v1.metrics import buckets

    assert metrics.FIRST_TOKEN_BUCKETS == buckets.TIME_TO_FIRST_TOKEN_BUCKETS
    assert metrics.PER_TOKEN_BUCKETS == buckets.INTER_TOKEN_LATENCY_BUCKETS


COUNT = """
import os, sys
from trimtab.plugin.http import metrics, versions
from tests.plugin.policies import small_registry
from tests.plugin.rolling import Rolling, run
from tests.plugin.test_experiments import POLICY, plan
from trimtab.plugin.control import served
from trimtab.plugin.control.finished import About, Finish
for generation in map(int, sys.argv[1:]):
    if not (child := os.fork()):
        metrics.announce([])
        metrics.count_finish(About((), "e", "control"), Finish("stop", 7, 3, 4, first_token_s=0.3))
        versions._GENERATION.set(generation)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
SHOW = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics after two API processes, one after the other, have counted one request each."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("shared"))}

    def run(program: str, *words: str) -> str:
        done = subprocess.run([sys.executable, "-c", program, *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(COUNT, "9", "8")
    return run(SHOW)


def test_processes_add_up_and_the_last_word_on_what_is_served_holds(page: str) -> None:
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    who = (("arm", "control"), ("experiment", "e"), ("profile", "none"))
    assert samples["trimtab_finished_total", (*who, ("reason", "stop"))] == 2
    assert samples["trimtab_time_to_first_token_seconds_sum", who] == pytest.approx(0.6)
    assert samples["trimtab_generation", ()] == 8


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
def test_promtool_takes_the_page(page: str) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_keep_the_customs_of_prometheus(page: str) -> None:
    """What `promtool check metrics` asks for, which is not installed everywhere."""
    families = list(text_string_to_metric_families(page))
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}
    for family in families:
        assert family.documentation, family.name
        assert family.name.startswith("trimtab_")
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= LABELS
        assert "timestamp" not in family.name or family.name.endswith("_seconds")
