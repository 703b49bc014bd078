"""The client against an endpoint that really listens: nothing lost, nothing asked twice, nothing unsteered believed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.offline.fake_endpoint import FakeEndpoint, picture_of, question_of
from trimtab.offline.errors import DataError, EndpointError, SettingError
from trimtab.offline.evaluation.answers import AnswersFolder, RunRequest, Served, read_answers
from trimtab.offline.evaluation.endpoint import Endpoint, ask_all
from trimtab.offline.states.samples import Sample

SAMPLES = tuple(Sample(f"s{n}", f"question {n}") for n in range(24))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setattr("trimtab.offline.evaluation.endpoint._LONGEST_WAIT", 0.2)
    running = FakeEndpoint()
    yield running
    running.stop()


def asked(steering: object = None, samples: int = len(SAMPLES), prompt: str = "{question}") -> RunRequest:
    return RunRequest(
        format="pope", data="sha256:0", samples=samples, model="m", steering=steering, prompt=prompt, max_tokens=8
    )


def run(
    server: FakeEndpoint,
    out: Path,
    *,
    steering: object = None,
    samples: tuple[Sample, ...] = SAMPLES,
    resume: bool = False,
    patience: float = 20,
    concurrency: int = 8,
    max_refused: int | None = None,
) -> AnswersFolder:
    folder = AnswersFolder(out, asked(steering, len(samples)), resume=resume)
    try:
        endpoint = Endpoint(server.url, concurrency=concurrency, patience=patience, max_refused=max_refused)
        ask_all(endpoint, samples, folder)
    finally:
        folder.close()
    return folder


def said(out: Path) -> dict[str, str | None]:
    return {one: answered.text for one, answered in read_answers(out)[1].items()}


EVERYTHING = {sample.id: sample.question for sample in SAMPLES}


def test_every_question_is_asked_once_and_every_answer_is_on_the_disk(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out")
    assert said(tmp_path / "out") == EVERYTHING
    assert sorted(map(question_of, server.seen)) == sorted(EVERYTHING.values())


def test_requests_are_many_at_once_and_never_more_than_allowed(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", concurrency=5)
    assert 2 <= server.most_at_once <= 5


def test_a_request_is_greedy_and_says_what_it_wants(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", steering={"profile": "p", "alpha": 0.5}, samples=SAMPLES[:1])
    body = server.seen[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 8)
    assert body["steering"] == {"profile": "p", "alpha": 0.5}


def test_an_unsteered_request_has_no_field_of_ours(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", samples=SAMPLES[:1])
    assert "steering" not in server.seen[0]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_may_pass_is_tried_again(server: FakeEndpoint, tmp_path: Path, status: int) -> None:
    server.failures = [status] * 4
    run(server, tmp_path / "out")
    assert said(tmp_path / "out") == EVERYTHING
    assert len(server.seen) == len(SAMPLES) + 4


def test_a_refusal_stops_the_run_at_the_first_answer_in_the_servers_words(server: FakeEndpoint, tmp_path: Path) -> None:
    server.refuse, server.param = "no profile is called 'yes-to-mo'; did you mean 'yes-to-no'?", "steering"
    with pytest.raises(EndpointError, match="did you mean 'yes-to-no'"):
        run(server, tmp_path / "out", steering="yes-to-mo")
    assert len(server.seen) == 1


def test_what_is_refused_of_every_sample_stops_the_run_after_three(server: FakeEndpoint, tmp_path: Path) -> None:
    server.refuse = "pictures are not taken"
    with pytest.raises(EndpointError, match="pictures are not taken"):
        run(server, tmp_path / "out")
    assert len(server.seen) == 3
    server.refuse = None
    run(server, tmp_path / "out")
    assert said(tmp_path / "out") == EVERYTHING


@pytest.mark.parametrize("place", [0, 1, 23])
def test_a_sample_that_is_refused_for_good_is_put_aside_in_the_servers_words(
    server: FakeEndpoint, tmp_path: Path, place: int
) -> None:
    server.refused = {SAMPLES[place].question}
    run(server, tmp_path / "out")
    answered = read_answers(tmp_path / "out")[1]
    assert answered[SAMPLES[place].id].skipped == "the endpoint refused it: the prompt is too long"
    assert sum(one.text is not None for one in answered.values()) == len(SAMPLES) - 1
    server.seen.clear()
    run(server, tmp_path / "out", resume=True)
    assert [question_of(body) for body in server.seen] == [SAMPLES[place].question]
    server.refused = set()
    run(server, tmp_path / "out", resume=True)
    assert said(tmp_path / "out") == EVERYTHING


def test_more_refusals_than_allowed_stop_the_run_and_may_be_allowed(server: FakeEndpoint, tmp_path: Path) -> None:
    server.refused = {one.question for one in SAMPLES[5:]}
    with pytest.raises(EndpointError, match=r"the prompt is too long.*--max-refused"):
        run(server, tmp_path / "out")
    run(server, tmp_path / "out", resume=True, max_refused=len(SAMPLES))
    assert sum(text is not None for text in said(tmp_path / "out").values()) == 5


def test_retry_after_is_heeded(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", samples=SAMPLES[:1])
    server.when.clear()
    server.later = ["1"]
    run(server, tmp_path / "more", samples=SAMPLES[:12], concurrency=1)
    first, second, *_ = server.when
    assert second - first >= 1


def test_an_endpoint_that_asks_for_more_patience_than_there_is_stops_the_run_at_once(
    server: FakeEndpoint, tmp_path: Path
) -> None:
    server.later = ["3600"]
    with pytest.raises(EndpointError, match="429"):
        run(server, tmp_path / "out", patience=5)
    assert len(server.seen) == 1


def test_two_runs_do_not_write_into_one_folder(server: FakeEndpoint, tmp_path: Path) -> None:
    first = AnswersFolder(tmp_path / "out", asked())
    with pytest.raises(DataError, match="another run is writing"):
        AnswersFolder(tmp_path / "out", asked(), resume=True)
    first.close()
    AnswersFolder(tmp_path / "out", asked()).close()


@pytest.mark.parametrize("stray", [b'{"id":"s0","text":"yes"}\n', b"notes of mine"])
def test_answers_of_nobody_knows_what_are_refused_and_left_as_they_are(tmp_path: Path, stray: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(stray)
    with pytest.raises(DataError, match=r"answers\.jsonl without request\.json"):
        AnswersFolder(tmp_path, asked())
    assert (tmp_path / "answers.jsonl").read_bytes() == stray


def test_pictures_that_were_missing_are_asked_again(server: FakeEndpoint, tmp_path: Path) -> None:
    picture = tmp_path / "there.png"
    Image.effect_noise((16, 16), 50).save(picture)
    wrong = tuple(Sample(f"s{n}", f"question {n}", tmp_path / "not" / "there.png" if n else picture) for n in range(4))
    run(server, tmp_path / "out", samples=wrong)
    right = tuple(Sample(one.id, one.question, picture) for one in wrong)
    server.seen.clear()
    run(server, tmp_path / "out", samples=right, resume=True)
    assert len(server.seen) == 3
    assert said(tmp_path / "out") == {one.id: one.question for one in right}


def test_an_answer_that_is_all_reasoning_is_noted(server: FakeEndpoint, tmp_path: Path) -> None:
    server.silent = True
    run(server, tmp_path / "out", samples=SAMPLES[:1])
    answered = read_answers(tmp_path / "out")[1]["s0"]
    assert (answered.text, answered.reasoned) == ("", True)


def test_key_and_password_are_in_no_error(server: FakeEndpoint, tmp_path: Path) -> None:
    server.refuse = "the key sk-secret of me:pass%20word is not known"
    address = server.url.replace("http://", "http://me:pass%20word@")
    folder = AnswersFolder(tmp_path / "out", asked())
    with pytest.raises(EndpointError) as caught:
        ask_all(Endpoint(address, api_key="sk-secret"), SAMPLES, folder)
    folder.close()
    assert "is not known" in str(caught.value)
    assert not [secret for secret in ("sk-secret", "pass%20word", "pass word") if secret in str(caught.value)]
    assert "sk-secret" not in repr(Endpoint(address, api_key="sk-secret"))


def test_user_and_password_of_the_address_stand_in_place_of_a_key(server: FakeEndpoint, tmp_path: Path) -> None:
    for user, key in (("me:pass%20word@", "Basic bWU6cGFzcyB3b3Jk"), ("", "Bearer sk-secret")):
        folder = AnswersFolder(tmp_path / key, asked(), resume=True)
        ask_all(Endpoint(server.url.replace("http://", f"http://{user}"), api_key="sk-secret"), SAMPLES, folder)
        folder.close()
        assert set(server.keys) == {key}
        server.keys.clear()


def test_an_endpoint_without_steering_headers_is_not_believed(server: FakeEndpoint, tmp_path: Path) -> None:
    server.mute = True
    with pytest.raises(EndpointError, match="without X-Steering-Profile"):
        run(server, tmp_path / "out", steering="p")
    assert len(server.seen) == 1
    assert not (tmp_path / "out" / "answers.jsonl").read_bytes()


def test_an_endpoint_that_knows_no_steering_serves_unsteered_runs(server: FakeEndpoint, tmp_path: Path) -> None:
    server.mute = True
    run(server, tmp_path / "out")
    assert said(tmp_path / "out") == EVERYTHING


@pytest.mark.parametrize(
    "header",
    [{"X-Steering-Profile": "q"}, {"X-Steering-Alpha": "0.5"}, {"X-Steering-Alpha": "much"}, {"X-Steering-Digest": ""}],
)
def test_headers_that_say_another_thing_stop_the_run(
    server: FakeEndpoint, tmp_path: Path, header: dict[str, str]
) -> None:
    server.forced = header
    with pytest.raises(EndpointError, match="not what was asked for"):
        run(server, tmp_path / "out", steering={"profile": "p", "alpha": 0.8})


def test_steering_that_nobody_asked_for_stops_the_run(server: FakeEndpoint, tmp_path: Path) -> None:
    server.forced = {"X-Steering-Profile": "p"}
    with pytest.raises(EndpointError, match="though nothing was asked for"):
        run(server, tmp_path / "out")


def test_who_steered_is_kept_and_another_digest_of_the_same_name_is_refused(
    server: FakeEndpoint, tmp_path: Path
) -> None:
    server.dead_after = 10
    with pytest.raises(EndpointError, match="--resume"):
        run(server, tmp_path / "out", steering="p", patience=0.1)
    kept = Served.model_validate_json((tmp_path / "out" / "served.json").read_bytes())
    assert kept == Served(profile="p", alpha="1.0", digest=server.digest)
    server.dead_after, server.digest = None, "another"
    with pytest.raises(EndpointError, match="another profile than at the beginning"):
        run(server, tmp_path / "out", steering="p", resume=True)


def test_an_endpoint_that_goes_away_loses_nothing_and_resume_asks_the_missing_ones_only(
    server: FakeEndpoint, tmp_path: Path
) -> None:
    server.dead_after = 12
    with pytest.raises(EndpointError, match=r"continue with --resume"):
        run(server, tmp_path / "out", patience=0.1)
    kept = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    assert 0 < len(kept) <= 12
    server.dead_after = None
    server.seen.clear()
    run(server, tmp_path / "out", resume=True)
    assert said(tmp_path / "out") == EVERYTHING
    asked_before = {EVERYTHING[json.loads(line)["id"]] for line in kept}
    assert set(map(question_of, server.seen)) == set(EVERYTHING.values()) - asked_before
    assert len(server.seen) == len(SAMPLES) - len(kept)


def test_a_server_that_hangs_up_is_named_with_what_is_kept(server: FakeEndpoint, tmp_path: Path) -> None:
    server.stop()
    with pytest.raises(EndpointError, match=r"did not answer for 0\.1 s .* 0 of 24 answers"):
        run(server, tmp_path / "out", patience=0.1)


@pytest.mark.parametrize("torn", [b'{"id":"s', b'{"id":"s3","text":"question 3"}', b"\xc3"])
def test_a_torn_last_line_is_asked_again(server: FakeEndpoint, tmp_path: Path, torn: bytes) -> None:
    run(server, tmp_path / "out")
    path = tmp_path / "out" / "answers.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)[:5]
    path.write_bytes(b"".join(whole) + torn)
    server.seen.clear()
    run(server, tmp_path / "out", resume=True)
    assert len(server.seen) == len(SAMPLES) - 5
    assert said(tmp_path / "out") == EVERYTHING


def test_a_line_in_the_middle_that_is_not_ours_is_named(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out")
    path = tmp_path / "out" / "answers.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(DataError, match="line 1"):
        run(server, tmp_path / "out", resume=True)


def test_a_folder_with_a_run_is_not_written_over(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", samples=SAMPLES[:2])
    with pytest.raises(DataError, match="--resume"):
        run(server, tmp_path / "out", samples=SAMPLES[:2])


def test_a_run_that_was_refused_at_once_can_be_begun_again_in_its_folder(server: FakeEndpoint, tmp_path: Path) -> None:
    server.refuse = "unknown profile"
    with pytest.raises(EndpointError, match="unknown profile"):
        run(server, tmp_path / "out", steering="typo")
    server.refuse = None
    run(server, tmp_path / "out", steering="p")
    assert said(tmp_path / "out") == EVERYTHING


def test_another_request_is_not_continued(server: FakeEndpoint, tmp_path: Path) -> None:
    run(server, tmp_path / "out", steering="p")
    with pytest.raises(SettingError, match="was begun with steering 'p'"):
        run(server, tmp_path / "out", steering="q", resume=True)


def test_an_unfinished_run_has_no_answers_to_read(server: FakeEndpoint, tmp_path: Path) -> None:
    server.dead_after = 3
    with pytest.raises(EndpointError):
        run(server, tmp_path / "out", patience=0.1)
    with pytest.raises(DataError, match="of 24 answers"):
        read_answers(tmp_path / "out")


def test_pictures_that_do_not_open_are_skipped_with_the_reason(server: FakeEndpoint, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.png", tmp_path / "torn.png"
    Image.effect_noise((64, 64), 50).save(whole)
    torn.write_bytes(whole.read_bytes()[:600])
    pictures = {"torn": torn, "missing": tmp_path / "no.png", "text": Path(__file__), "whole": whole}
    samples = tuple(Sample(name, name, path) for name, path in pictures.items())
    run(server, tmp_path / "out", samples=samples)
    answered = read_answers(tmp_path / "out")[1]
    assert {one: answered[one].skipped for one in pictures} == {
        "torn": "the picture does not open",
        "missing": "the picture is missing",
        "text": "the picture does not open",
        "whole": None,
    }
    sent = picture_of(server.seen[0])
    assert base64.b64decode(sent.removeprefix("data:image/png;base64,")) == whole.read_bytes()


def test_a_picture_in_a_format_that_servers_do_not_read_is_sent_as_png(server: FakeEndpoint, tmp_path: Path) -> None:
    picture = Image.effect_noise((16, 16), 50)
    picture.save(tmp_path / "one.bmp")
    run(server, tmp_path / "out", samples=(Sample("one", "what?", tmp_path / "one.bmp"),))
    sent = base64.b64decode(picture_of(server.seen[0]).removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(sent)).convert("L").tobytes() == picture.tobytes()
