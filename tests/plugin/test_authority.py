"""Every request of a server with an access policy gets what the policy gives it or is refused, and is told of once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vllm.entrypoints.llm import LLM
from vllm.exceptions import GracefulHTTPError, VLLMError, VLLMValidationError
from vllm.pooling_params import PoolingParams
from vllm.v1.engine.input_processor import InputProcessor

from tests.plugin.policies import KEYS, digest_of, small_registry
from tests.plugin.rolling import Rolling, run
from tests.plugin.test_admission import extra_args_of, picture, request_with
from trimtab.plugin import engine, engine_args
from trimtab.plugin.config import SteeringConfig, file_digest
from trimtab.plugin.control import authority, identity
from trimtab.plugin.control.decisions import DECISIONS_FILE, DecisionLog
from trimtab.plugin.control.identity import carried_by, carrying
from trimtab.plugin.control.refresh import Refresh
from trimtab.plugin.errors import StartupError
from trimtab.plugin.requests import beams, decided
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.vectors import ModelIdentity, Profile, SteeringVector, save_profile

POLICY = f"""\
version: 1
subjects:
  team-a: {{keys: ["{digest_of(KEYS["team-a"])}"]}}
rules:
  - subjects: [team-a]
    allow: {{across: {{alpha: [0, 1.2]}}, "style-*": {{}}}}
    may_opt_out: true
  - subjects: ["*"]
default: {{profile: style-plain, alpha: 0.5}}
enforced: [{{profile: safe, alpha: 1}}, {{profile: looks, alpha: 1}}]
"""
DEFAULT, SAFE = ("style-plain", 0.5), ("safe", 1.0)


@pytest.fixture
def folder(model: ModelIdentity, tmp_path: Path) -> Path:
    looks = Profile.coarse("looks", [SteeringVector(0, [0.0, 0.0, 0.0, 1.0])], model=model, positions="image")
    for profile in (*small_registry(model).values(), looks):
        save_profile(profile, tmp_path / "profiles" / profile.name)
    return tmp_path / "profiles"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def server(folder: Path, policy: Path, model_folder: Path, tmp_path: Path, _installed: None) -> Rolling:
    return Rolling(folder, model_folder, tmp_path / "state", policy=policy)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a function of vLLM's that hands out the request that it is given; in a process that serves HTTP."""
    monkeypatch.setattr(InputProcessor, "process_inputs", lambda self, request: request)
    monkeypatch.setattr(identity, "_serves_http", True)
    monkeypatch.setattr(authority, "observers", [])
    engine.install()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[authority.Told]:
    told: list[authority.Told] = []
    monkeypatch.setattr(authority, "observers", [told.append])
    return told


def process(vllm_config: Any, request: Any) -> Any:
    processor: Any = SimpleNamespace(vllm_config=vllm_config, renderer=SimpleNamespace(mm_processor_cache=None))
    through: Any = InputProcessor.process_inputs
    return through(processor, request)


def served(server: Any, said: Any = None, key: str | None = None, **more: Any) -> list[tuple[str, float]]:
    """Names and strengths that the workers are told for a request. said: of the field, None for a request without."""
    request = request_with(None if said is None else {"steering": said}, **more)
    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    with carrying(carried_by("/v1/completions", headers)):
        process(server.vllm_config, request)
    names = {profile.digest: profile.name for profile in server.registry.values()}
    return sorted((names[part["digest"]], part["alpha"]) for part in (extra_args_of(request) or {}).get(WIRE_KEY, ()))


def refusal(ask: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(VLLMError) as caught:
        ask()
    status = caught.value.http_status if isinstance(caught.value, GracefulHTTPError) else 400
    return int(status), str(caught.value)


def test_a_request_gets_what_its_subject_may_have(server: Rolling) -> None:
    a = KEYS["team-a"]
    assert served(server) == served(server, key=a) == served(server, key="of nobody") == [SAFE, DEFAULT]
    assert served(server, "across", key=a) == [("across", 1.0), SAFE]
    assert served(server, "none", key=a) == [SAFE]
    for said, key in (("across", None), ("across", "of nobody"), ("none", None), (["across", "early"], a)):
        status, reason = refusal(lambda said=said, key=key: served(server, said, key))  # type: ignore[misc]
        assert (status, "of the access policy" in reason) == (403, True)
    assert refusal(lambda: served(server, {"profile": "across", "alpha": 1.3}, a))[0] == 403


def test_a_field_that_is_null_says_nothing(server: Rolling) -> None:
    request = request_with({"steering": None})
    process(server.vllm_config, request)
    assert len((extra_args_of(request) or {})[WIRE_KEY]) == 2


def test_what_is_added_for_pictures_acts_where_there_are_some(server: Rolling) -> None:
    assert served(server, mm_features=[picture(2, 3)]) == [("looks", 1.0), SAFE, DEFAULT]
    assert served(server, mm_features=[picture(2, 3)], key=KEYS["team-a"], said="none") == [("looks", 1.0), SAFE]


def test_a_request_that_generates_nothing_is_left_alone(server: Rolling) -> None:
    request = request_with(None, sampling_params=None, pooling_params=PoolingParams())
    assert process(server.vllm_config, request).sampling_params is None


def test_a_request_that_streams_its_prompt_is_refused_rather_than_served_without(server: Rolling) -> None:
    assert "resumable" in refusal(lambda: served(server, resumable=True))[1]


def test_the_callers_parameters_are_not_changed_for_the_next_request(server: Rolling) -> None:
    mine = {"other": 1}
    for _ in range(2):
        process(server.vllm_config, request_with(mine))
        assert mine == {"other": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.sampled_from(["safe", "none"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["profile", "alpha", "x"]), inner),
    max_leaves=6,
)
wishes = st.sampled_from(["safe", "reckless", "none", "across", "early", "looks", "slanted"])
asked = st.one_of(
    json_values,
    wishes,
    st.lists(st.fixed_dictionaries({"profile": wishes, "alpha": st.floats(-5, 5)}) | wishes, max_size=5),
)


@given(
    extra=st.dictionaries(st.sampled_from(["steering", "trimtab", "Steering", "x"]), asked, max_size=3),
    key=st.sampled_from([None, "of nobody", *KEYS.values()]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_gets_round_what_is_enforced(server: Rolling, extra: dict[str, Any], key: str | None) -> None:
    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    with carrying(carried_by("/v1/completions", headers)):
        try:
            request = process(server.vllm_config, request_with(extra))
        except VLLMError:
            return
    parts = (extra_args_of(request) or {})[WIRE_KEY]
    safe = server.registry["safe"].digest
    assert [part["alpha"] for part in parts if part["digest"] == safe] == [1.0]


def test_the_resolved_form_is_refused_as_ever(server: Rolling) -> None:
    with pytest.raises(VLLMValidationError, match="is reserved"):
        process(server.vllm_config, request_with({WIRE_KEY: []}))


def test_each_decision_is_told_once(server: Rolling, told: list[authority.Told]) -> None:
    a = KEYS["team-a"]
    with decided.deciding():  # one HTTP request of two prompts
        served(server, "across", a)
        served(server, "across", a)
    served(server)
    refusal(lambda: served(server, "across"))
    refusal(lambda: served(server, "unknown", a))
    refusal(lambda: served(server, {"profile": "style-plain", "alpha": 99}, a))  # a 400 is no decision
    assert [(one.subject, one.rule, one.outcome) for one in told] == [
        ("team-a", "rule-1", "allowed"),
        ("team-a", "rule-1", "allowed"),
        (None, "rule-2", "defaulted"),
        (None, "rule-2", "refused"),
        ("team-a", "rule-1", "refused"),
    ]
    assert told[0].profiles == (("across", 1.0), SAFE, ("looks", 1.0))


def test_the_decision_log_has_a_line_for_each_and_no_key(server: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog(server.state.folder)
    monkeypatch.setattr(authority, "observers", [log])
    served(server, "across", KEYS["team-a"])
    refusal(lambda: served(server, KEYS["team-b"], KEYS["team-a"]))
    log.flush()
    text = (server.state.folder / DECISIONS_FILE).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["subject"], line["rule"], line["outcome"]) for line in lines] == [
        ("team-a", "rule-1", "allowed"),
        ("team-a", "rule-1", "refused"),
    ]
    assert lines[0]["profiles"][0] == {"profile": "across", "alpha": 1.0}
    assert KEYS["team-a"] not in text


def test_a_log_that_cannot_be_written_ends_no_request(
    server: Rolling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = DecisionLog(server.state.folder / "gone")
    monkeypatch.setattr(authority, "observers", [log])
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    assert served(server) == served(server) == [SAFE, DEFAULT]
    log.flush()
    # By identity: a handler that another test has left behind keeps the same record a second time.
    assert len({id(one) for one in caplog.records if "decision log cannot be written" in one.message}) == 1


@pytest.mark.usefixtures("_installed")
def test_report_mode_decides_and_changes_nothing(
    folder: Path, policy: Path, model_folder: Path, tmp_path: Path, told: list[authority.Told]
) -> None:
    policy.write_text(POLICY.replace("version: 1", "version: 1\nmode: report"))
    server = Rolling(folder, model_folder, tmp_path / "state", policy=policy)
    assert served(server) == []
    assert served(server, "reckless") == [("reckless", 1.0)]
    assert [(one.outcome, one.mode) for one in told] == [("defaulted", "report"), ("would_refuse", "report")]
    assert "may not use profile 'reckless'" in told[1].reason


def rescan(server: Rolling, policy: Path) -> list[str]:
    return run(Refresh(server.rollout, 1.0, None, policy, lambda: server.now().staged).once())


def test_a_changed_file_holds_from_the_next_request_and_a_bad_one_changes_nothing(
    server: Rolling, policy: Path
) -> None:
    rescan(server, policy)
    before = server.now()
    assert rescan(server, policy) == []
    assert server.now().counter == before.counter
    policy.write_text(
        POLICY.replace("alpha: 0.5", "alpha: 0.25").replace("allow: {across", "allow: {early: {}, across")
    )
    assert rescan(server, policy) == []
    after = server.now()
    assert (after.counter, after.policy) == (before.counter + 1, file_digest(policy))
    assert served(server) == [SAFE, ("style-plain", 0.25)]
    for bad, reason in (("mode: dream", "line 11: mode"), ("x: &a 1", "line 11: uses an anchor")):
        policy.write_text(POLICY + bad)
        [problem] = rescan(server, policy)
        assert reason in problem
        assert server.now() == after
        assert served(server) == [SAFE, ("style-plain", 0.25)]
    policy.unlink()
    assert "cannot be read" in rescan(server, policy)[0]
    assert served(server) == [SAFE, ("style-plain", 0.25)]
    audited = [json.loads(line) for line in server.audited()]
    assert next(line["result"] for line in audited if line["event"] == "policy") == "done"


def test_what_is_enforced_and_out_ends_every_request_with_a_503(server: Rolling) -> None:
    run(server.rollout.disable("safe", "recalled", "test"))
    for said, key in ((None, None), ("across", KEYS["team-a"]), ("none", KEYS["team-a"])):
        status, reason = refusal(lambda said=said, key=key: served(server, said, key))  # type: ignore[misc]
        assert (status, "recalled" in reason) == (503, True)
    run(server.rollout.enable("safe", "test"))
    assert served(server) == [SAFE, DEFAULT]
    run(server.rollout.unload("safe", "test"))
    assert refusal(lambda: served(server))[0] == 503


def test_a_policy_that_is_gone_or_altered_is_a_503_and_not_no_policy(
    server: Rolling, folder: Path, policy: Path, model_folder: Path, tmp_path: Path
) -> None:
    breaks: list[Callable[[Path], object]] = [
        Path.unlink,
        lambda path: path.write_text(POLICY.replace("safe", "across")),
    ]
    for number, break_it in enumerate(breaks):
        policy.write_text(POLICY + f"# {number}\n")
        other = Rolling(folder, model_folder, tmp_path / f"state-{number}", policy=policy)
        [kept] = (other.state.folder / "policies").iterdir()
        break_it(kept)
        status, reason = refusal(lambda other=other: served(other))  # type: ignore[misc]
        assert (status, "does not know its access policy" in reason) == (503, True)
    assert served(server) == [SAFE, DEFAULT]


def test_only_the_last_policies_are_kept(server: Rolling, policy: Path) -> None:
    for number in range(9):
        policy.write_text(POLICY + f"# {number}\n")
        rescan(server, policy)
    assert len(list((server.state.folder / "policies").iterdir())) == 4
    assert served(server) == [SAFE, DEFAULT]


@pytest.fixture
def program(folder: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, _installed: None) -> Any:
    """A Python program with an engine of its own: no HTTP, no state folder."""
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr(identity, "_serves_http", False)
    policy.write_text(
        POLICY.replace('subjects: ["*"]', "subjects: [local]\n    allow: {early: {}}\nlimits: {against_enforced: 9}")
    )
    return engine_args(folder, policy=policy)["additional_config"]


def test_a_python_program_is_the_subject_local(
    program: Any, policy: Path, folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    server = Rolling(folder, model_folder, tmp_path / "state", policy=policy)
    vllm_config = SimpleNamespace(**{**vars(server.vllm_config), "additional_config": program})
    assert SteeringConfig.of(vllm_config).state == ""  # type: ignore[arg-type, union-attr]
    request = request_with({"steering": "early"})
    authority.check(vllm_config, server.registry)
    process(vllm_config, request)
    assert len((extra_args_of(request) or {})[WIRE_KEY]) == 2


def test_beam_search_of_a_python_program_is_refused_where_something_is_added(
    program: Any, policy: Path, folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "beam_search", lambda self, prompts: prompts)
    beams.install()
    server = Rolling(folder, model_folder, tmp_path / "state", policy=policy)
    vllm_config = SimpleNamespace(**{**vars(server.vllm_config), "additional_config": program})
    llm: Any = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=vllm_config))
    search: Any = LLM.beam_search
    assert "beam search" in refusal(lambda: search(llm, ["x"]))[1]
    vllm_config.additional_config = {}
    assert search(llm, ["x"]) == ["x"]


def test_a_policy_that_does_not_fit_keeps_an_engine_from_starting(
    program: Any, policy: Path, folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    server = Rolling(folder, model_folder, tmp_path / "state", policy=policy)
    vllm_config = SimpleNamespace(**{**vars(server.vllm_config), "additional_config": program})
    policy.write_text(POLICY.replace("profile: safe", "profile: sure"))
    with pytest.raises(StartupError, match=r"the access policy policy.yaml cannot be used: line 10: .*'sure'"):
        authority.check(vllm_config, server.registry)
    with pytest.raises(StartupError, match="'sure'"):
        Rolling(folder, model_folder, tmp_path / "other", policy=policy)
    policy.write_text(POLICY + "# another\n")
    status, reason = refusal(lambda: process(vllm_config, request_with(None)))
    assert (status, "changed since the engine was configured" in reason) == (503, True)
    with pytest.raises(StartupError, match=r"none.yaml, cannot be read \(No such file"):
        engine_args(folder, policy=policy.with_name("none.yaml"))
