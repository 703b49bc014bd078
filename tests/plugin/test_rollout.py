"""What a running server serves changes in one step, or stays as it was."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.plugin.conftest import SIZE
from tests.plugin.rolling import Rolling, run, version
from trimtab.plugin.control.generation import Generation
from trimtab.plugin.control.served import _followers, served
from trimtab.plugin.control.state import State
from trimtab.plugin.requests.request import choose
from trimtab.plugin.runners import staging
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, save_profile
from trimtab.vectors.asked import parse
from trimtab.vectors.errors import FormatError, ProfileError, RequestError, UnknownProfileError

WHO = "admin 01234567"


@pytest.fixture
def server(folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rolling:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    return Rolling(folder, model_folder, tmp_path / "state")


def test_a_server_begins_with_its_folder(server: Rolling) -> None:
    now = server.now()
    assert {name: profile.digest for name, profile in now.registry.items()} == {
        name: profile.digest for name, profile in server.registry.items()
    }
    assert set(now.staged) == {profile.digest for profile in server.registry.values()}
    assert (now.counter, dict(now.disabled), now.policy) == (1, {}, None)


def test_a_staged_version_is_resident_everywhere_and_named_by_its_digest_only(
    server: Rolling, model: ModelIdentity
) -> None:
    old, new = server.registry["polite"], server.put(version(model, 7.0))
    run(server.rollout.stage("polite", WHO))
    now = server.now()
    assert all(new.digest in held for held in server.held())
    assert now.registry["polite"].digest == old.digest
    for asked, digest in (
        ("polite", old.digest),
        (f"polite@sha256:{old.digest[:12]}", old.digest),
        (f"polite@sha256:{new.digest[:12]}", new.digest),
        (f"polite@sha256:{new.digest}", new.digest),
    ):
        ((profile, _),) = choose(parse(asked), now.registry)
        assert profile.digest == digest
    with pytest.raises(RequestError, match=r"version sha256:0{12} of profile 'polite' is not loaded"):
        choose(parse("polite@sha256:" + "0" * 12), now.registry)


def test_activating_is_one_rename_and_so_is_going_back(server: Rolling, model: ModelIdentity) -> None:
    old, new = server.registry["polite"], server.put(version(model, 7.0))
    run(server.rollout.stage("polite", WHO))
    for expected in (new, old, new):
        before = server.now().counter
        run(server.rollout.activate("polite", WHO))
        assert server.now().registry["polite"].digest == expected.digest
        assert server.now().counter == before + 1
    run(server.rollout.activate("polite", WHO, new.digest[:12]))  # which it is
    assert server.now().registry["polite"].digest == new.digest
    with pytest.raises(RequestError, match="version sha256:abcabcabcabc of profile 'polite' is not resident") as caught:
        run(server.rollout.activate("polite", WHO, "abc" * 4))
    assert caught.value.status == 409


def test_a_wider_range_alone_is_a_new_version_too(server: Rolling, coarse: Profile) -> None:
    wider = AlphaRange(default=0.5, min=-9.0, max=9.0)
    server.put(Profile(coarse.manifest.model_copy(update={"alpha": wider}), coarse.tensors))
    with pytest.raises(RequestError, match="alpha"):
        choose(parse("polite@8"), server.now().registry)
    run(server.rollout.serve("polite", WHO))
    assert choose(parse("polite@8"), server.now().registry)[0][1] == 8.0
    run(server.rollout.activate("polite", WHO))
    with pytest.raises(RequestError, match="alpha"):
        choose(parse("polite@8"), server.now().registry)


def test_a_profile_that_was_not_there_at_start_can_be_served(server: Rolling, model: ModelIdentity) -> None:
    server.put(version(model, 3.0, "fresh"))
    run(server.rollout.stage("fresh", WHO))
    with pytest.raises(UnknownProfileError):
        choose(parse("fresh"), server.now().registry)
    run(server.rollout.activate("fresh", WHO))
    assert choose(parse("fresh"), server.now().registry)


def test_a_thousand_versions_need_the_room_of_two_and_every_request_finds_its_own(
    server: Rolling, model: ModelIdentity
) -> None:
    """The request that came with each version ends when the next but one is there."""
    shapes = [tensor.data_ptr() for worker in server.workers for tensor in worker.tables.buffers()]
    for number in range(200):
        server.put(version(model, number + 10.0))
        run(server.rollout.serve("polite", WHO))
        digest = server.now().registry["polite"].digest
        server.admit(f"r{number}", digest)
        server.requests.pop(f"r{number - 2}", None)
        for name in server.requests:
            (part,) = server.requests[name].sampling_params.extra_args["trimtab"]
            assert all(part["digest"] in held for held in server.held())
    assert [tensor.data_ptr() for worker in server.workers for tensor in worker.tables.buffers()] == shapes
    assert len(list((server.state.folder / "versions").iterdir())) == len(server.registry) + 1


def test_rows_that_a_request_needs_are_not_used_again(
    folder: Path, model_folder: Path, tmp_path: Path, model: ModelIdentity
) -> None:
    server = Rolling(folder, model_folder, tmp_path / "state", rows=1)
    first = server.registry["polite"]
    server.admit("long", first.digest)
    second = server.put(version(model, 2.0))
    run(server.rollout.serve("polite", WHO))
    server.put(version(model, 3.0))
    with pytest.raises(RequestError, match=r"no slot is free for profile 'polite' .* --steering-rows") as no:
        run(server.rollout.serve("polite", WHO))
    assert no.value.status == 409
    assert all({first.digest, second.digest} <= held for held in server.held())
    assert server.now().registry["polite"].digest == second.digest
    del server.requests["long"]
    run(server.rollout.serve("polite", WHO))
    assert all(first.digest not in held for held in server.held())


def test_a_version_that_is_about_to_lose_its_rows_can_no_longer_be_named(server: Rolling, model: ModelIdentity) -> None:
    old = server.registry["polite"]
    server.put(version(model, 2.0))
    run(server.rollout.serve("polite", WHO))
    seen: list[bool] = []

    async def look(name: str, content: str, keep: list[str]) -> None:
        seen.append(old.digest in server.now().staged or old.digest in keep)

    server.rollout._stage = look
    server.put(version(model, 3.0))
    run(server.rollout.stage("polite", WHO))
    assert seen == [False]


@pytest.mark.parametrize(
    "spoil", ["cut", "missing", "other weights", "a worker", "another folder", "a layer", "rows", "dose"]
)
def test_what_cannot_be_staged_leaves_everything_as_it_was(
    server: Rolling, model: ModelIdentity, spoil: str, tmp_path: Path
) -> None:
    before, held = server.state.read(), server.held()
    path = server.profiles / "polite" / "profile.safetensors"
    server.put(version(model, 7.0))
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif spoil == "missing":
        path.unlink()
    elif spoil == "other weights":
        other_model = model.model_copy(update={"fingerprint": "sampled-sha256:" + "0" * 64})
        shutil.copytree(save_profile(version(other_model, 7.0), tmp_path / "x"), path.parent, dirs_exist_ok=True)
    elif spoil == "a worker":  # the second one, after the first has loaded it
        server.workers[1].get_model = lambda: SimpleNamespace()
    elif spoil == "another folder":
        other = Rolling.__new__(Rolling)
        other.profiles = tmp_path / "other"
        other.put(version(model, 8.0))
        moved = json.loads(json.dumps(server.vllm_config.additional_config))
        moved["trimtab"]["profiles"] = str(other.profiles)
        server.workers[1].vllm_config = SimpleNamespace(**{**vars(server.vllm_config), "additional_config": moved})
    elif spoil == "dose":
        server.vllm_config.model_config.dtype = torch.float16
        server.put(version(model, 1e4, alpha=AlphaRange(max=9.0)))
    elif spoil == "a layer":
        server.put(Profile.coarse("polite", [SteeringVector(1, [1.0] * SIZE)], model=model))
        for worker in server.workers:
            worker.tables._armed = (0, 2)
    elif spoil == "rows":
        rows = [[float(k)] * SIZE for k in range(40)]
        server.put(Profile.fine("polite", {0: (rows, rows)}, model=model))
    with pytest.raises(RequestError) as caught:
        run(server.rollout.serve("polite", WHO))
    assert caught.value.status == 409
    assert server.state.read() == before
    assert server.now().registry["polite"].digest == server.registry["polite"].digest
    assert all(was <= now for was, now in zip(held, server.held(), strict=True) if spoil != "a worker")
    assert json.loads(server.audited()[-1])["result"].split(";")[0] in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../polite", "/etc", "polite/..", "..", "", "Polite", "nowhere", "a" * 64, "none", "\0"]
)
def test_only_the_folders_own_profiles_can_be_named(server: Rolling, name: str) -> None:
    with pytest.raises(RequestError, match="is no profile folder in profiles"):
        run(server.rollout.stage(name, WHO))


def test_an_unloaded_profile_is_unknown_and_a_disabled_one_a_503_with_the_reason(server: Rolling) -> None:
    run(server.rollout.disable("polite", "it insults people", WHO))
    with pytest.raises(RequestError, match="profile 'polite' is disabled: it insults people") as caught:
        choose(parse("polite"), server.now().registry)
    assert caught.value.status == 503
    assert "polite" not in server.now().registry
    assert server.now().disabled == {"polite": "it insults people"}
    with pytest.raises(RequestError, match="is disabled"):
        choose(parse(f"polite@sha256:{server.registry['polite'].digest[:12]}"), server.now().registry)
    run(server.rollout.enable("polite", WHO))
    assert choose(parse("polite"), server.now().registry)
    run(server.rollout.unload("polite", WHO))
    with pytest.raises(UnknownProfileError):
        choose(parse("polite"), server.now().registry)
    with pytest.raises(RequestError, match="unknown profile 'polite'") as unknown:
        run(server.rollout.unload("polite", WHO))
    assert unknown.value.status == 404
    run(server.rollout.serve("polite", WHO))
    assert choose(parse("polite"), server.now().registry)


def test_a_restart_serves_the_folder_and_keeps_what_is_disabled(
    server: Rolling, folder: Path, model_folder: Path
) -> None:
    run(server.rollout.disable("polite", "no", WHO))
    counter = server.now().counter
    server.state.release()
    _followers.clear()
    again = Rolling(folder, model_folder, server.state.folder)
    assert again.now().counter == counter + 1
    assert again.now().disabled == {"polite": "no"}


def test_two_servers_cannot_share_a_state_folder(server: Rolling) -> None:
    with pytest.raises(ProfileError, match="another server uses this state folder; give each its own --steering-state"):
        State(server.state.folder).begin()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format_version": 2, "counter": 1}', "has format version 2; this trimtab reads version 1"),
        (b'{"format_version": 1, "counter": 1, "more": 1}', "more: Extra inputs are not permitted"),
        (b'{"format_version": 1, "counter": 0}', "counter: Input should be greater than or equal to 1"),
        (b"{", "is not valid JSON"),
        (None, "cannot be read"),
    ],
)
def test_nothing_is_served_by_a_generation_that_cannot_be_read(
    server: Rolling, content: bytes | None, message: str
) -> None:
    server.now()
    path = server.state.folder / "generation.json"
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(RequestError, match=f"(?s)this server does not know what it may serve: .*({message})") as no:
            served(server.vllm_config)
        assert no.value.status == 503
    path.write_bytes(good)
    assert server.now().counter == 1


def test_a_server_with_an_unknown_generation_does_not_start(server: Rolling) -> None:
    server.state.release()
    (server.state.folder / "generation.json").write_text('{"format_version": 9, "counter": 1}')
    with pytest.raises(FormatError, match=r"generation\.json: has format version 9; this trimtab reads version 1"):
        State(server.state.folder).begin()


def test_what_has_not_changed_costs_one_stat(server: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    server.now()
    stats: list[Any] = []
    stat = os.stat

    def counted(*path: Any, **more: Any) -> os.stat_result:
        stats.append(path)
        return stat(*path, **more)

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr(State, "read", lambda self: pytest.fail("it was read again"))
    for _ in range(3):
        server.now()
    assert len(stats) == 3


def test_a_process_reads_the_bytes_that_were_verified_whatever_the_folder_holds_by_then(
    server: Rolling, model: ModelIdentity
) -> None:
    new = server.put(version(model, 7.0))
    run(server.rollout.serve("polite", WHO))
    server.put(version(model, 8.0))
    _followers.clear()  # another API process, which comes to look only now; it had read the folder at start
    follower = State(server.state.folder)
    generation = follower.read()
    active = generation.profiles["polite"].active
    assert active is not None
    assert follower.load(active.content).digest == new.digest == active.digest


def test_a_state_folder_in_which_nothing_can_be_opened_is_said_to_be_that(server: Rolling) -> None:
    before = server.state.read()
    (server.state.folder / "lock").unlink(missing_ok=True)
    (server.state.folder / "lock").mkdir()  # what root, too, cannot write
    with pytest.raises(ProfileError, match="the state folder cannot be written"):
        run(server.rollout.disable("polite", "no", WHO))
    assert server.state.read() == before


def test_changes_come_one_after_the_other(server: Rolling, model: ModelIdentity) -> None:
    async def both() -> None:
        await asyncio.gather(*(server.rollout.disable(name, "no", WHO) for name in server.registry.names))

    run(both())
    assert set(server.now().disabled) == set(server.registry.names)
    assert server.now().counter == 1 + len(server.registry)


def test_every_change_leaves_a_line_and_a_refused_one_too(server: Rolling, model: ModelIdentity) -> None:
    old, new = server.registry["polite"], server.put(version(model, 7.0))
    run(server.rollout.serve("polite", WHO))
    with pytest.raises(RequestError):
        run(server.rollout.stage("nowhere", WHO))
    done, refused = map(json.loads, server.audited())
    assert (done["event"], done["who"], done["profile"], done["result"]) == ("serve", WHO, "polite", "done")
    assert done["from"] == {"active": old.digest, "other": None}
    assert done["to"] == {"active": new.digest, "other": old.digest}
    assert done["generation"] == server.now().counter
    assert refused["result"].startswith("nowhere: is no profile folder")


def test_a_worker_is_asked_whether_it_holds_what_is_served(server: Rolling) -> None:
    digests = sorted(server.state.read().resident)
    staging.trimtab_holds(server.workers[0], digests)
    with pytest.raises(Exception, match="a worker lacks the version sha256:000000000000 of a profile"):
        staging.trimtab_holds(server.workers[0], ["0" * 64])


def test_the_digest_of_two_servers_is_the_same_when_they_serve_the_same(server: Rolling) -> None:
    generation = server.state.read()
    later = generation.model_copy(update={"counter": 9})
    assert later.digest == generation.digest
    assert generation.without("polite", "no").digest != generation.digest
    assert Generation.parse(generation.dump("x"), "x") == generation
