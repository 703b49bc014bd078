"""How requests take part in experiments: a server without an engine, from the field to the log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import GracefulHTTPError, VLLMError
from vllm.v1.engine.input_processor import InputProcessor

from tests.plugin.policies import KEYS, digest_of, small_registry
from tests.plugin.rolling import Rolling, run
from tests.plugin.test_admission import request_with
from trimtab.plugin import engine
from trimtab.plugin.control import authority, finished, identity
from trimtab.plugin.control.experiments import expose
from trimtab.plugin.control.experiments.expose import Exposures
from trimtab.plugin.control.experiments.units import unit_of
from trimtab.plugin.control.finished import About, Finish
from trimtab.plugin.control.identity import carried_by, carrying
from trimtab.plugin.control.refresh import Refresh
from trimtab.plugin.control.state import PHASES_FILE
from trimtab.plugin.errors import StartupError
from trimtab.plugin.http.told import headers_of, object_of
from trimtab.plugin.requests import decided, fields
from trimtab.plugin.requests.decided import Chosen, Governed, entered_by
from trimtab.vectors import ModelIdentity, save_profile
from trimtab.vectors.asked import Wish
from trimtab.vectors.errors import FormatError
from trimtab.vectors.experiments import Closing, Experiment, Exposure, UnitKey, read_lines, read_plan
from trimtab.vectors.experiments.unit import UNIT_KEY

SECRET = "a unit key of thirty-two characters"
SAFE = ("safe", 1.0)
DEFAULT = ("style-plain", 0.5)
ARMS = {"control": [], "weak": [("across", 0.5)], "usual": [DEFAULT]}
END = Finish("stop", 7, 3, 4, 0.1, 0.2, 0.01, 0.5)


def plan(**more: Any) -> str:
    """JSON is YAML."""
    arms = {"control": {"steering": "none"}, "weak": {"steering": "across@0.5"}, "usual": {"steering": None}}
    one = {"layer": "l", "range": [0, 1], "seed": "s-1", "coverage": 1, "arms": arms, "status": "running", **more}
    draft = {**one, "layer": "m", "seed": "s-2", "status": "draft"}
    layers = {"l": {"seed": "l"}, "m": {"seed": "m"}}
    return json.dumps({"version": 1, "layers": layers, "experiments": {"doses": one, "later": draft}})


POLICY = f"""\
version: 1
subjects:
  team-a: {{keys: ["{digest_of(KEYS["team-a"])}"]}}
  team-b: {{keys: ["{digest_of(KEYS["team-b"])}"]}}
rules:
  - {{subjects: [team-a], experiments: [doses, later], may_force_arm: true, allow: {{unmeasured: {{}}}}}}
  - {{subjects: [team-b], default: {{experiment: doses}}, allow: {{unmeasured: {{}}}}, may_opt_out: true}}
  - {{subjects: ["*"]}}
default: {{profile: style-plain, alpha: 0.5}}
enforced: [{{profile: safe, alpha: 1}}]
"""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InputProcessor, "process_inputs", lambda self, request: request)
    monkeypatch.setattr(identity, "_serves_http", True)
    monkeypatch.setattr(authority, "observers", [])
    monkeypatch.setenv(UNIT_KEY, SECRET)
    monkeypatch.setenv(expose.REPLICA, "one")
    engine.install()


@pytest.fixture
def home(model: ModelIdentity, tmp_path: Path) -> Path:
    for profile in small_registry(model).values():
        save_profile(profile, tmp_path / "profiles" / profile.name)
    (tmp_path / "plan.yaml").write_text(plan())
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def free(home: Path, model_folder: Path) -> Rolling:
    """Without a policy."""
    return Rolling(home / "profiles", model_folder, home / "free", experiments=home / "plan.yaml")


@pytest.fixture
def governed(home: Path, model_folder: Path) -> Rolling:
    files: dict[str, Any] = {"experiments": home / "plan.yaml", "policy": home / "policy.yaml"}
    return Rolling(home / "profiles", model_folder, home / "state", **files)


@pytest.fixture
def log(home: Path, monkeypatch: pytest.MonkeyPatch) -> Exposures:
    made = Exposures(home / "log")
    monkeypatch.setattr(expose, "admitted", [made.admitted])
    monkeypatch.setattr(finished, "listeners", [made.finished])
    monkeypatch.setattr(decided, "ended", [made.ended])
    return made


@contextmanager
def served(server: Rolling, said: Any, key: str | None = None, prompts: int = 1, **body: Any) -> Iterator[Chosen]:
    """An HTTP request while it is served: what it gets. body: of a chat completion, or headers by `x_…`."""
    headers = [] if key is None else [(b"authorization", f"Bearer {KEYS[key]}".encode())]
    for name in [name for name in body if name.startswith("x_")]:
        headers += [(name.replace("_", "-").encode(), value.encode()) for value in body.pop(name)]
    processor: Any = SimpleNamespace(vllm_config=server.vllm_config, renderer=SimpleNamespace(mm_processor_cache=None))
    through: Any = InputProcessor.process_inputs
    with carrying(carried_by("/v1/chat/completions", headers)), decided.deciding() as found:
        found.request = SimpleNamespace(messages=[{"role": "user", "content": "hello"}], **body)
        for number in range(prompts):
            request = request_with(None if said is None else {"steering": said}, request_id=f"chatcmpl-{number}")
            through(processor, request)
        assert found.chosen is not None
        yield found.chosen


def given(server: Rolling, said: Any, key: str | None = None, **body: Any) -> list[tuple[str, float]]:
    with served(server, said, key, **body) as chosen:
        return [(profile.name, alpha) for profile, alpha in chosen]


def arm_of(server: Rolling, said: Any, key: str | None = None, **body: Any) -> str | None:
    with served(server, said, key, **body) as chosen:
        entered = entered_by(chosen)
        return None if entered is None else entered.variation


def refusal(ask: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(VLLMError) as caught:
        ask()
    status = caught.value.http_status if isinstance(caught.value, GracefulHTTPError) else 400
    return int(status), str(caught.value)


def unit_for(server: Rolling, arm: str) -> str:
    """A unit that is assigned to an arm."""
    wishes = ({"experiment": "doses", "unit": f"u{number}"} for number in range(100))
    return next(wish["unit"] for wish in wishes if arm_of(server, wish) == arm)


def test_a_unit_gets_one_arm_and_each_arm_what_it_says(free: Rolling) -> None:
    for arm, parts in {**ARMS, "usual": []}.items():  # without a policy there is no default
        wish = {"experiment": "doses", "unit": unit_for(free, arm)}
        assert [given(free, wish) for _ in range(3)] == [parts] * 3
        assert arm_of(free, wish) == arm


def test_an_arm_stands_under_the_policy_and_beside_what_it_enforces(governed: Rolling, free: Rolling) -> None:
    for arm, parts in ARMS.items():
        wish = {"experiment": "doses", "unit": unit_for(free, arm)}
        assert given(governed, wish, "team-a") == [*parts, SAFE]
        assert arm_of(governed, wish, "team-a") == arm
        # By default, too; and the name of an experiment is no right to its profiles.
        assert given(governed, {"unit": wish["unit"]}, "team-b") == [*parts, SAFE]
        assert refusal(lambda: given(governed, "across@0.5", "team-b"))[0] == 403
        status, reason = refusal(lambda: given(governed, wish))  # noqa: B023
        assert (status, "rule-3 of the access policy" in reason) == (403, True)


def test_who_enters_by_default_and_chooses_for_itself_is_logged_so(governed: Rolling, free: Rolling, log: Any) -> None:
    unit = unit_for(free, "control")
    wishes = ({"unit": unit}, {"unit": unit, "profile": "unmeasured"}, None)
    gets = [given(governed, wish, "team-b", x_session_id=[unit]) for wish in wishes]
    assert gets == [[SAFE], [("unmeasured", 1.0), SAFE], [SAFE]]
    assert given(governed, "none", "team-b", x_session_id=[unit]) == [SAFE]
    log.flush()
    lines = [line for line in read_lines(log._lines.path) if isinstance(line, Exposure)]
    told = [(line.variation, line.assigned, line.served, line.profile) for line in lines]
    assert ("control", "control", "named", "unmeasured, safe") in told
    assert told[-2:] == [("control", "control", "control", "safe"), ("control", "control", "none", "safe")]
    assert {line.unit for line in lines[-4:]} == {UnitKey(SECRET).pseudonym(unit)}


def test_without_a_unit_a_named_experiment_is_refused_and_a_default_one_is_not_entered(
    governed: Rolling, free: Rolling
) -> None:
    status, reason = refusal(lambda: given(free, {"experiment": "doses"}))
    assert (status, '"unit" in steering' in reason, "X-Session-ID" in reason) == (400, True, True)
    assert refusal(lambda: given(free, {"experiment": "doses"}, x_session_id=["a", "b"]))[0] == 400
    assert given(governed, None, "team-b") == [DEFAULT, SAFE]
    assert arm_of(governed, None, "team-b") is None
    assert arm_of(governed, None, "team-b", user="u") == arm_of(free, {"experiment": "doses", "unit": "u"})


def test_what_cannot_be_asked_for_is_said(governed: Rolling, free: Rolling) -> None:
    assert "there are: doses, later" in refusal(lambda: given(free, {"experiment": "dose", "unit": "u"}))[1]
    status, reason = refusal(lambda: given(governed, {"experiment": "dose", "unit": "u"}, "team-a"))
    assert (status, "allowed: doses, later" in reason) == (403, True)
    for server, key in ((free, None), (governed, "team-b")):
        wish = {"experiment": "doses", "unit": "u", "arm": "weak"}
        status, reason = refusal(lambda: given(server, wish, key))  # noqa: B023
        assert (status, "may_force_arm" in reason) == (403, True)
    wish = {"experiment": "doses", "unit": "u", "arm": "strong"}
    assert "there are: control, weak, usual" in refusal(lambda: given(governed, wish, "team-a"))[1]


def test_a_forced_arm_is_given_whatever_the_unit_is_and_said_so(governed: Rolling, free: Rolling, log: Any) -> None:
    for experiment in ("doses", "later"):
        wish = {"experiment": experiment, "unit": unit_for(free, "control"), "arm": "weak"}
        assert given(governed, wish, "team-a") == [*ARMS["weak"], SAFE]
    log.flush()
    lines = [line for line in read_lines(log._lines.path) if isinstance(line, Exposure) and line.forced]
    assert [(line.experiment, line.served) for line in lines] == [("doses", "weak"), ("later", "weak")]
    assert lines[0].variation == "control"


@pytest.mark.parametrize(
    ("more", "gets"),
    [
        ({"status": "draft"}, [DEFAULT, SAFE]),
        ({"status": "stopped"}, [DEFAULT, SAFE]),
        ({"status": "stopped(weak)"}, [*ARMS["weak"], SAFE]),
        ({"coverage": 0}, [DEFAULT, SAFE]),
    ],
)
def test_who_takes_no_part_gets_the_default_and_is_not_logged(
    home: Path, model_folder: Path, more: dict[str, Any], gets: Any
) -> None:
    (home / "plan.yaml").write_text(plan(**more))
    files: dict[str, Any] = {"experiments": home / "plan.yaml", "policy": home / "policy.yaml"}
    server = Rolling(home / "profiles", model_folder, home / "state", **files)
    for said, key in (({"experiment": "doses", "unit": "u"}, "team-a"), ({"unit": "u"}, "team-b")):
        assert given(server, said, key) == gets
        assert arm_of(server, said, key) is None


def test_a_holdout_gets_the_default(home: Path, model_folder: Path) -> None:
    (home / "plan.yaml").write_text(plan().replace('{"seed": "l"}', '{"seed": "l", "holdout": 1.0}'))
    files: dict[str, Any] = {"experiments": home / "plan.yaml", "policy": home / "policy.yaml"}
    server = Rolling(home / "profiles", model_folder, home / "state", **files)
    assert given(server, {"unit": "u"}, "team-b") == [DEFAULT, SAFE]


def test_an_answer_says_what_the_log_says(governed: Rolling, log: Exposures, free: Rolling) -> None:
    wish = {"experiment": "doses", "unit": unit_for(free, "weak")}
    with served(governed, wish, "team-a") as chosen:
        headers, told = headers_of(chosen), object_of(chosen)
        for tell in finished.listeners:
            tell(_about(chosen), END)
    log.flush()
    exposure, closing = list(read_lines(log._lines.path))[-2:]
    assert isinstance(exposure, Exposure)
    assert isinstance(closing, Closing)
    assert headers["X-Steering-Exposure"] == told["exposure_id"] == exposure.exposure_id == closing.exposure_id
    assert headers["X-Steering-Experiment"] == told["experiment"] == exposure.experiment == "doses"
    assert headers["X-Steering-Variation"] == told["variation"] == exposure.variation == "weak"
    assert (headers["X-Steering-Profile"], headers["X-Steering-Digest"]) == (exposure.profile, exposure.digest)
    assert (exposure.alpha, exposure.replica, exposure.request_id) == ("0.5, 1.0", "one", "chatcmpl-0")
    assert exposure.plan == read_plan(plan()).digest
    assert (closing.finish_reason, closing.cached_tokens, closing.e2e_s) == ("stop", 4, 0.5)
    unsteered: Any = Governed(())
    unsteered.entered = entered_by(chosen)
    assert object_of(unsteered) == {"profile": "none", **{name: told[name] for name in ("exposure_id", "experiment")},
                                    "variation": "weak"}  # fmt: skip


def _about(chosen: Chosen) -> About:
    return engine._about(chosen)


def test_a_request_of_several_prompts_is_one_exposure_and_closed_once(free: Rolling, log: Exposures) -> None:
    wish = {"experiment": "doses", "unit": "of a test"}
    with served(free, wish, prompts=3) as chosen:
        for end in (END, Finish("abort", 1, 1, 1), END):
            log.finished(_about(chosen), end)
        log.flush()
        assert [line.event for line in read_lines(log._lines.path)] == ["exposure"]  # its answer goes on
    log.flush()
    [_, closing] = read_lines(log._lines.path)
    assert isinstance(closing, Closing)
    assert (closing.finish_reason, closing.prompt_tokens, closing.first_token_s) == ("abort", 15, 0.2)
    # An answer that has ended waits for its prompts: those of an answer in the background.
    with served(free, wish) as chosen:
        pass
    log.flush()
    assert [line.event for line in read_lines(log._lines.path)][2:] == ["exposure"]
    log.finished(_about(chosen), END)
    log.flush()
    assert [line.event for line in read_lines(log._lines.path)][2:] == ["exposure", "closed"]
    assert not log._open


def test_no_line_holds_a_unit_or_a_text(free: Rolling, log: Exposures) -> None:
    for said, body in (
        ({"experiment": "doses", "unit": "unit-of-mine"}, {}),
        ({"experiment": "doses"}, {"x_session_id": ["unit-of-mine"]}),
        ({"experiment": "doses"}, {"user": "unit-of-mine"}),
    ):
        with served(free, said, **body):
            pass
    log.flush()
    text = log._lines.path.read_text()
    assert len(text.splitlines()) == 3
    for word in ("unit-of-mine", "hello", SECRET):
        assert word not in text


def test_a_refused_request_is_no_exposure(free: Rolling, log: Exposures) -> None:
    refusal(lambda: given(free, {"experiment": "doses"}))
    refusal(lambda: given(free, "nobody"))
    log.flush()
    assert not log._lines.path.exists()


def test_a_disk_that_refuses_ends_no_request(
    free: Rolling, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = Exposures(home / "log")
    monkeypatch.setattr(expose, "admitted", [log.admitted])
    (home / "log" / "exposures.jsonl").mkdir()
    assert given(free, {"experiment": "doses", "unit": "u"}) is not None
    log.flush()
    assert "the exposure log cannot be written" in caplog.text


def test_a_changed_plan_holds_from_the_next_request_and_a_bad_one_changes_nothing(home: Path, free: Rolling) -> None:
    def rescan() -> list[str]:
        refresh = Refresh(free.rollout, 1, None, None, lambda: free.now().staged, home / "plan.yaml")
        return run(refresh._follow_plan())

    wish = {"experiment": "doses", "unit": unit_for(free, "weak")}
    first = free.now().experiments
    assert rescan() == []
    for text, said in (
        ("version: 1\nexperiments: {}", "write `status: stopped`"),
        (plan(coverage=0.5), "the coverage may only grow"),
        (plan(arms={"control": {"steering": "none"}, "weak": {"steering": "across@9"}}), "under the seed"),
        (plan(seed="s-9").replace("across@0.5", "across@9"), "alpha"),
        (plan(seed="s-9").replace("across@0.5", "nobody@9"), "unknown profile"),
        ("{", "is not YAML"),
    ):
        (home / "plan.yaml").write_text(text)
        [problem] = rescan()
        assert said in problem
        assert free.now().experiments == first
        assert arm_of(free, wish) == "weak"
    (home / "plan.yaml").write_text(plan(status="stopped"))
    assert rescan() == []
    assert (given(free, wish), arm_of(free, wish)) == ([], None)
    (home / "plan.yaml").write_text(plan())
    assert "may not go on" in rescan()[0]


def test_a_restart_holds_the_plan_to_the_one_before(home: Path, free: Rolling, model_folder: Path) -> None:
    free.state.release()
    (home / "plan.yaml").write_text(plan(coverage=0.5))
    with pytest.raises(StartupError, match="the coverage may only grow"):
        Rolling(home / "profiles", model_folder, home / "free", experiments=home / "plan.yaml")


def test_an_earlier_seed_is_noticed_also_after_the_plan_and_the_server_were_gone(
    home: Path, free: Rolling, model_folder: Path
) -> None:
    file = home / "plan.yaml"

    def follow(text: str) -> list[str]:
        file.write_text(text)
        return run(Refresh(free.rollout, 1, None, None, lambda: free.now().staged, file)._follow_plan())

    assert follow(plan(seed="s-7")) == []
    assert "may not go on under the seed 's-1'" in follow(plan())[0]
    assert follow(plan(seed="s-7", status="stopped")) == []
    without = json.dumps({"version": 1, "layers": {"l": {"seed": "l"}}})
    assert follow(without) == []
    for seed in ("s-1", "s-7"):
        assert f"may not go on under the seed '{seed}'" in follow(plan(seed=seed))[0]
    free.state.release()
    Rolling(home / "profiles", model_folder, home / "free").state.release()  # without experiments
    for seed in ("s-1", "s-7"):
        file.write_text(plan(seed=seed))
        state = shutil.copytree(home / "free", home / f"free-{seed}")  # one that has failed is taken until it ends
        with pytest.raises(StartupError, match=f"may not go on under the seed '{seed}'"):
            Rolling(home / "profiles", model_folder, state, experiments=file)
    file.write_text(plan(seed="s-8"))
    again = Rolling(home / "profiles", model_folder, home / "free", experiments=file)
    assert again.now().experiments is not None


def test_a_record_of_phases_that_cannot_be_read_stops_the_start(home: Path, free: Rolling, model_folder: Path) -> None:
    free.state.release()
    (home / "free" / PHASES_FILE).write_text("{}")
    with pytest.raises(FormatError, match=r"^phases\.json: has format version None"):
        Rolling(home / "profiles", model_folder, home / "free", experiments=home / "plan.yaml")


@pytest.mark.parametrize(
    ("plan_text", "policy_text", "key", "said"),
    [
        (plan(), None, "", "it needs 32 or more"),
        (plan(), None, "short", "has 5 characters"),
        (plan().replace("across@0.5", "acros"), None, SECRET, "did you mean 'across'"),
        (plan().replace("across@0.5", "safe@0.5"), POLICY, SECRET, "is enforced by the access policy"),
        (plan().replace("across@0.5", "reckless@1"), POLICY, SECRET, "may undo"),
        (plan(), POLICY.replace("experiment: doses", "experiment: dose"), SECRET, "names experiment 'dose'"),
        (None, POLICY, SECRET, "names experiment 'doses'"),
    ],
    ids=["no key", "a short key", "no profile", "enforced", "a limit", "no experiment", "no plan"],
)
def test_a_server_does_not_start_with_what_it_cannot_do(
    home: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan_text: str | None,
    policy_text: str | None,
    key: str,
    said: str,
) -> None:
    monkeypatch.setenv(UNIT_KEY, key)
    files: dict[str, Any] = {}
    for name, text in (("experiments", plan_text), ("policy", policy_text)):
        if text is not None:
            files[name] = home / f"{name}.of-this-test"
            files[name].write_text(text)
    with pytest.raises(StartupError, match=said):
        Rolling(home / "profiles", model_folder, home / "state", **files)


def test_an_arm_that_cannot_be_given_is_a_503_and_no_exposure(free: Rolling, log: Exposures) -> None:
    wish = {"experiment": "doses", "unit": unit_for(free, "weak")}
    log.flush()
    before = len(log._lines.path.read_text().splitlines())
    run(free.rollout.disable("across", "it is under repair", "somebody"))
    status, reason = refusal(lambda: given(free, wish))
    assert (status, "it is under repair" in reason) == (503, True)
    log.flush()
    assert len(log._lines.path.read_text().splitlines()) == before


# A unit is at least a conversation.


def sourced(source: str, request: Any = None, said: Wish = Wish(), **headers: list[str]) -> str | None:  # noqa: B008
    one = Experiment.model_validate(
        {
            "layer": "l",
            "seed": "s",
            "coverage": 1,
            "unit": [source],
            "arms": {"a": {"steering": "none"}, "b": {"steering": "p"}},
        }
    )
    found = unit_of(one, said, request, {name.replace("_", "-"): values for name, values in headers.items()})
    return None if found is None else found[0]


def chat(*turns: str, **more: Any) -> ChatCompletionRequest:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    return ChatCompletionRequest.model_validate({"model": "m", "messages": messages, **more})


def test_a_conversation_is_one_unit_however_long_it_gets() -> None:
    first = sourced("conversation", chat("hello"))
    assert first is not None
    assert "hello" not in first
    assert first == sourced("conversation", chat("hello", "hi", "how are you?"))
    assert first != sourced("conversation", chat("hullo", "hi", "how are you?"))
    said = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    response = sourced("conversation", ResponsesRequest.model_validate({"model": "m", "input": said}))
    longer = [*said, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and?"}]
    assert response == sourced("conversation", ResponsesRequest.model_validate({"model": "m", "input": longer}))
    after = ResponsesRequest.model_validate({"model": "m", "input": "and?", "previous_response_id": "resp_1"})
    assert sourced("conversation", after) is None
    assert sourced("conversation", SimpleNamespace(prompt="hello")) is None


def test_where_a_unit_comes_from() -> None:
    assert sourced("steering.unit", said=Wish(unit="u")) == "u"
    assert sourced("user", chat("hello", user="u")) == "u"
    assert sourced("X-Session-ID", x_session_id=["u"]) == "u"
    assert sourced("X-Session-ID", x_session_id=["u", "v"]) is None
    assert sourced("user", chat("hello"), Wish(unit="u"), x_session_id=["u"]) is None


def test_the_user_of_a_message_is_its_unit() -> None:
    fields.install()
    message = AnthropicMessagesRequest.model_validate(
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "metadata": {"user_id": "u"}}
    )
    handed: Any = AnthropicServingMessages._build_base_request
    assert sourced("user", handed(message, [{"role": "user", "content": "x"}])) == "u"
    message.metadata = None
    assert sourced("user", handed(message, [{"role": "user", "content": "x"}])) is None
