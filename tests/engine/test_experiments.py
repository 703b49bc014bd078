"""A server with an experiment: each unit gets one arm on every door, and the log says who got what, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.asking import Ask
from tests.engine.engine import Engine
from tests.engine.governed import HELD, KEY, OTHER, TRIAL, UNIT_SECRET, USUAL, key_of, planned, until
from tests.engine.server import CHAT, MODEL_NAME, Server
from tests.engine.test_http_doors import LENGTH, QUESTION, TURNS, Reply, body_of, fields, reply_of
from trimtab.plugin.control.experiments.assign import assigned
from trimtab.plugin.http.routes import BATCH, STEERED
from trimtab.vectors.experiments import Closing, Exposure, UnitKey, read_lines, read_plan

pytestmark = pytest.mark.engine

UNITS = [f"unit number {number} of a test" for number in range(200)]
PER_UNIT = 5
ARMS = {"control": [HELD], "usual": [USUAL, HELD], "other": [OTHER, HELD]}
DOORS = [(path, stream) for path in sorted(STEERED) for stream in (False, True) if not (stream and path == BATCH)]


@pytest.fixture(scope="module")
def answers(engine: Engine) -> dict[str, Any]:
    """What an engine without experiments answers when it is asked for what an arm gives."""
    found = engine.ask_alone([Ask(QUESTION, steering=parts, max_tokens=LENGTH) for parts in ARMS.values()])
    assert len({answer.text for answer in found}) == 3
    return dict(zip(ARMS, found, strict=True))


def log_of(home: Path) -> list[Exposure | Closing]:
    return list(read_lines(home / "exposures")) if (home / "exposures" / "exposures.jsonl").exists() else []


def closed(home: Path) -> bool:
    """Whether every exposure that is in the log has been closed."""
    events = Counter(line.event for line in log_of(home))
    return events["exposure"] == events["closed"]


def headers_of(path: str, key: str = TRIAL, **more: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in {**key_of(path, key), **more}.items()}


def post(server: Server, door: tuple[str, bool], prompt: list[int], steering: Any, **headers: str) -> Reply:
    path, stream = door
    more = {"stream": True} if stream else {}
    body = body_of(path, prompt, **more, **({} if steering is None else {"steering": steering}))
    return reply_of(path, server.http.post(path, json=body, headers=headers_of(path, **headers)))


def test_each_unit_gets_one_arm_on_every_door_also_while_the_plan_grows(
    governed: Server, governed_home: Path, answers: dict[str, Any]
) -> None:
    prompt = answers["control"].prompt

    def ask(number: int) -> tuple[str, Reply]:
        if number == len(UNITS) * PER_UNIT // 3:
            (governed_home / "plan.yaml").write_text(planned(coverage=1))
        unit = UNITS[number % len(UNITS)]
        if number % 2:  # by its name
            return unit, post(governed, DOORS[number % len(DOORS)], prompt, {"experiment": "doses", "unit": unit})
        return unit, post(governed, DOORS[number % len(DOORS)], prompt, None, x_session_id=unit)

    # 11 doors and 5 requests: each unit comes to another door each time.
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, range(len(UNITS) * PER_UNIT)))
    key, wide = UnitKey(UNIT_SECRET), read_plan(planned(coverage=1))
    narrow = read_plan(planned())
    arms: defaultdict[str, list[str | None]] = defaultdict(list)
    for unit, reply in replies:
        arm = reply.steering.get("variation")
        arms[unit].append(arm)
        assert set(reply.texts) == {answers[arm or "usual"].text}
        said = [reply.headers.get(f"x-steering-{name}") for name in ("exposure", "experiment", "variation")]
        assert said == [reply.steering.get(name) for name in ("exposure_id", "experiment", "variation")]
    for unit, found in arms.items():
        first, last = (assigned(plan, "doses", unit, key) for plan in (narrow, wide))
        assert set(found) <= {first, last}
        assert found[0] == first  # of the first round, before the plan grew
        assert found[-1] == last
        assert first in (None, last)
    assert {None, *ARMS} == {arm for found in arms.values() for arm in found}
    assert until(lambda: closed(governed_home))
    check_log(governed_home, [reply for _, reply in replies], key)


def check_log(home: Path, replies: list[Reply], key: UnitKey) -> None:
    told = {reply.steering["exposure_id"]: reply for reply in replies if "exposure_id" in reply.steering}
    exposures = [line for line in log_of(home) if isinstance(line, Exposure)]
    closings = Counter(line.exposure_id for line in log_of(home) if isinstance(line, Closing))
    mine = {line.exposure_id: line for line in exposures if line.exposure_id in told}
    assert mine.keys() == told.keys()
    assert max(Counter(line.exposure_id for line in exposures).values()) == 1
    assert {closings[name] for name in told} == {1}
    pseudonyms = {key.pseudonym(unit) for unit in UNITS}
    for name, line in mine.items():
        reply = told[name]
        assert line.variation == line.served == line.assigned == reply.headers["x-steering-variation"]
        assert (line.profile, line.digest) == tuple(reply.headers[f"x-steering-{of}"] for of in ("profile", "digest"))
        assert line.unit in pseudonyms
        assert line.unit_source in ("steering.unit", "X-Session-ID")
    ends = [line for line in log_of(home) if isinstance(line, Closing) and line.exposure_id in told]
    assert {line.finish_reason for line in ends} <= {"stop", "length"}
    assert min(line.generated_tokens or 0 for line in ends) >= 1
    assert max(line.generated_tokens or 0 for line in ends) > LENGTH  # of two prompts together
    assert all(line.e2e_s and line.first_token_s and line.e2e_s >= line.first_token_s for line in ends)


def test_who_chooses_for_itself_is_assigned_and_not_served(
    governed: Server, governed_home: Path, answers: dict[str, Any]
) -> None:
    unit = next(unit for unit in UNITS if assigned(read_plan(planned()), "doses", unit, UnitKey(UNIT_SECRET)))
    for wish, served in (({**OTHER, "unit": unit}, "named"), ("none", "none")):
        reply = post(governed, (CHAT, False), [], wish, x_session_id=unit)
        assert reply.texts == [answers["other" if served == "named" else "control"].text]
        assert until(lambda: closed(governed_home))
        line = next(line for line in log_of(governed_home) if line.exposure_id == reply.steering["exposure_id"])
        assert isinstance(line, Exposure)
        assert (line.served, line.forced, line.assigned) == (served, False, reply.steering["variation"])
    reply = post(governed, (CHAT, False), [], {"experiment": "doses", "unit": unit, "arm": "other"})
    assert reply.texts == [answers["other"].text]
    assert until(lambda: closed(governed_home))
    line = next(line for line in log_of(governed_home) if line.exposure_id == reply.steering["exposure_id"])
    assert isinstance(line, Exposure)
    assert (line.forced, line.served) == (True, "other")


@pytest.mark.parametrize("path", sorted(STEERED))
def test_what_is_refused_is_no_exposure(
    governed: Server, governed_home: Path, answers: dict[str, Any], path: str
) -> None:
    before = len(log_of(governed_home))
    tries: list[tuple[int, str, Any]] = [
        (400, TRIAL, {"experiment": "doses"}),
        (403, TRIAL, {"experiment": "dose", "unit": "u"}),
        (400, TRIAL, {"experiment": "doses", "unit": "u", "arm": "strong"}),
        (400, TRIAL, {"experiment": "doses", "profile": OTHER["profile"]}),
        (403, KEY, {"experiment": "doses", "unit": "u"}),
    ]
    for stream in (False,) if path == BATCH else (False, True):
        for status, key, wish in tries:
            body = {"model": MODEL_NAME, **fields(path, answers["control"].prompt), "steering": wish}
            more = {"stream": True} if stream else {}
            reply = governed.http.post(path, json={**body, **more}, headers=headers_of(path, key))
            assert reply.status_code == status, (wish, reply.text)
            assert not [name for name in reply.headers if name.startswith("x-steering")]
    spilled = {"model": MODEL_NAME, **fields(path, answers["control"].prompt), "experiment": "doses"}
    reply = governed.http.post(path, json=spilled, headers=headers_of(path))
    assert (reply.status_code, '"experiment": ' in reply.json()["error"]["message"]) == (400, True)
    assert len(log_of(governed_home)) == before


def test_an_answer_that_is_cut_off_is_closed_as_an_abort(governed: Server, governed_home: Path) -> None:
    body = {"model": MODEL_NAME, "messages": TURNS, "max_tokens": 400, "stream": True, "ignore_eos": True}
    wish = {"experiment": "doses", "unit": UNITS[0], "arm": "control"}
    with governed.http.stream("POST", CHAT, json={**body, "steering": wish}, headers=headers_of(CHAT)) as reply:
        name = reply.headers["x-steering-exposure"]
        next(reply.iter_lines())
    assert until(lambda: closed(governed_home))
    [end] = [line for line in log_of(governed_home) if isinstance(line, Closing) and line.exposure_id == name]
    assert end.finish_reason == "abort"
    assert end.generated_tokens is not None
    assert end.generated_tokens < 400


def test_an_answer_in_the_background_is_one_exposure(governed: Server, governed_home: Path) -> None:
    wish = {"experiment": "doses", "unit": UNITS[0], "arm": "control"}
    body = {"model": MODEL_NAME, "input": QUESTION, "max_output_tokens": 4, "background": True, "steering": wish}
    first = governed.http.post("/v1/responses", json=body, headers=headers_of("/v1/responses")).json()

    def done() -> bool:
        now = governed.http.get(f"/v1/responses/{first['id']}", headers=headers_of("/v1/responses")).json()
        return bool(now["status"] == "completed")

    assert until(done)
    assert until(lambda: closed(governed_home))
    stored = governed.http.get(f"/v1/responses/{first['id']}", headers=headers_of("/v1/responses")).json()
    name = stored["steering"]["exposure_id"]
    events = [line.event for line in log_of(governed_home) if line.exposure_id == name]
    assert events == ["exposure", "closed"]


def test_no_log_holds_a_unit_a_text_or_a_key(governed: Server, governed_home: Path) -> None:
    text = (governed_home / "exposures" / "exposures.jsonl").read_text()
    for file in ("server.log", "state/decisions.jsonl", "state/audit.jsonl", "state/generation.json"):
        text += (governed_home / file).read_text() if (governed_home / file).exists() else ""
    text += governed.http.get("/metrics").text
    for word in ("of a test", QUESTION, UNIT_SECRET, TRIAL):
        assert word not in text


def test_ready_and_discovery_say_what_is_in_force(governed: Server, governed_home: Path) -> None:
    told = governed.http.get("/v1/steering/ready").json()
    plan = read_plan((governed_home / "plan.yaml").read_text())
    assert (told["ready"], told["experiments"]) == (True, plan.digest)
    assert told["unit_key"] == UnitKey(UNIT_SECRET).fingerprint
    [card] = governed.http.get("/v1/steering/experiments").json()["data"]
    assert (card["id"], card["status"], card["arms"]) == ("doses", "running", list(ARMS))


def test_the_kill_switch_holds_at_once_and_a_plan_that_would_move_units_does_not(
    governed: Server, governed_home: Path, answers: dict[str, Any]
) -> None:
    def ready() -> httpx.Response:
        return governed.http.get("/v1/steering/ready")

    before = ready().json()["experiments"]
    (governed_home / "plan.yaml").write_text(planned(coverage=0.1))
    assert until(lambda: ready().status_code == 503)
    assert ready().json()["experiments"] == before
    assert until(lambda: "the coverage may only grow" in (governed_home / "server.log").read_text())
    for status, arm in (("stopped", "usual"), ("stopped(other)", "other")):
        text = planned(coverage=1, status=status)
        (governed_home / "plan.yaml").write_text(text)
        assert until(lambda text=text: ready().json()["experiments"] == read_plan(text).digest)  # type: ignore[misc]
        for wish in (None, {"experiment": "doses"}):
            reply = post(governed, (CHAT, False), [], wish, x_session_id=UNITS[0])
            assert (reply.texts, "exposure_id" in reply.steering) == ([answers[arm].text], False)
    (governed_home / "plan.yaml").write_text(planned(seed="d-2"))
    assert until(lambda: ready().status_code == 200)
