"""A rescan brings a server to what its folder or the desired state says, never to less than the last good version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.plugin.rolling import Rolling, run, version
from trimtab.plugin.config import file_digest
from trimtab.plugin.control.desired import Desired
from trimtab.plugin.control.refresh import Refresh
from trimtab.plugin.control.rollout import AUDIT_FILE
from trimtab.plugin.requests.request import choose
from trimtab.vectors import ModelIdentity, save_profile
from trimtab.vectors.asked import parse
from trimtab.vectors.errors import FormatError, RequestError
from trimtab.vectors.experiments.unit import UNIT_KEY

Made = Callable[..., Rolling]


@pytest.fixture
def made(folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)

    def make(desired: str | None = None) -> Rolling:
        file = tmp_path / "desired.yaml"
        if desired is None:
            return Rolling(folder, model_folder, tmp_path / "state")
        file.write_text(desired)
        return Rolling(folder, model_folder, tmp_path / "state", file)

    return make


def active(server: Rolling) -> dict[str, str]:
    return {name: profile.digest for name, profile in server.now().registry.items()}


def test_the_folder_is_followed(made: Made, model: ModelIdentity) -> None:
    server = made()
    refresh = Refresh(server.rollout, 1, None)
    assert run(refresh.once()) == []
    assert server.now().counter == 1  # nothing to do, and nothing done
    new = server.put(version(model, 7.0))
    added = server.put(version(model, 8.0, "added"))
    shutil.rmtree(server.profiles / "brief")
    assert run(refresh.once()) == []
    gender = server.registry["gender-neutral"].digest
    assert active(server) == {"added": added.digest, "gender-neutral": gender, "polite": new.digest}
    counter = server.now().counter
    assert run(refresh.once()) == []
    assert server.now().counter == counter


def test_a_half_written_profile_leaves_the_last_good_one_until_it_is_whole(made: Made, model: ModelIdentity) -> None:
    server = made()
    refresh = Refresh(server.rollout, 1, None)
    run(refresh.once())
    before = active(server)
    whole = save_profile(version(model, 7.0), server.profiles.parent / "whole")
    tensors = server.profiles / "polite" / "profile.safetensors"
    shutil.copy(whole / "profile.json", tensors.parent / "profile.json")
    (problem,) = run(refresh.once())
    assert problem.startswith("polite/profile.safetensors: its sha256 is")
    assert active(server) == before
    assert run(refresh.once()) == []  # said once, and tried again when the files change
    shutil.copy(whole / "profile.safetensors", tensors)
    assert run(refresh.once()) == []
    assert active(server)["polite"] == version(model, 7.0).digest


def test_what_cannot_be_served_is_shown_until_it_can_or_is_gone(made: Made, model: ModelIdentity) -> None:
    """Also between two tries, which are a minute apart."""
    server = made()
    refresh = Refresh(server.rollout, 1, None)

    def shown() -> float | None:
        run(refresh.turn())
        return REGISTRY.get_sample_value("trimtab_rescan_problems")

    assert shown() == 0
    whole = server.put(version(model, 7.0))
    tensors = server.profiles / "polite" / "profile.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    assert (shown(), shown()) == (1, 1)
    server.put(whole)
    assert shown() == 0
    shutil.copytree(server.profiles / "polite", server.profiles / "other")  # a name that is not its own
    assert (shown(), shown()) == (1, 1)
    shutil.rmtree(server.profiles / "other")
    assert shown() == 0


def test_a_folder_that_is_empty_for_a_moment_takes_nothing_out(made: Made) -> None:
    server = made()
    before = active(server)
    server.profiles.rename(server.profiles.with_name("away"))
    server.profiles.mkdir()
    (problem,) = run(Refresh(server.rollout, 1, None).once())
    assert problem == "profiles: holds no profile, so what was served stays"
    assert active(server) == before


def test_the_desired_state_names_what_is_active_staged_and_disabled(made: Made, model: ModelIdentity) -> None:
    plain = made()
    old, gender = plain.registry["polite"], plain.registry["gender-neutral"]
    plain.state.release()
    new = version(model, 7.0)
    text = "version: 1\nprofiles:\n"
    server = made(text + f"  polite: {{active: 'sha256:{old.digest}'}}\n")
    file = Path(server.config.desired)
    assert active(server) == {"polite": old.digest}  # from the first request on
    refresh = Refresh(server.rollout, 1, file)
    assert run(refresh.once()) == []
    server.put(new)
    file.write_text(text + f"  polite: {{active: 'sha256:{old.digest[:12]}', staged: 'sha256:{new.digest[:12]}'}}\n")
    assert "is not resident" in next(Desired.read(file).unmet(server.state.read()))
    assert run(refresh.once()) == []
    assert active(server) == {"polite": old.digest}
    assert new.digest in server.now().staged
    file.write_text(
        text
        + f"  polite: {{active: 'sha256:{new.digest}'}}\n"
        + f"  gender-neutral: {{active: 'sha256:{gender.digest}', disabled: too much}}\n"
    )
    assert run(refresh.once()) == []
    assert active(server) == {"polite": new.digest}
    with pytest.raises(RequestError, match="'gender-neutral' is disabled: too much"):
        choose(parse("gender-neutral"), server.now().registry)
    assert list(Desired.read(file).unmet(server.state.read())) == []
    assert run(refresh.once()) == []
    counter = server.now().counter
    assert run(refresh.once()) == []
    assert server.now().counter == counter


def test_a_version_that_is_not_there_is_said_and_nothing_else_is_served_under_its_name(
    made: Made, model: ModelIdentity
) -> None:
    server = made("version: 1\nprofiles:\n  polite: {active: 'sha256:000000000000'}\n")
    assert active(server) == {}
    file = Path(server.config.desired)
    (problem,) = run(Refresh(server.rollout, 1, file).once())
    assert "and not sha256:000000000000; copy that version there first" in problem
    assert active(server) == {}
    assert list(Desired.read(file).unmet(server.state.read())) == [
        "version sha256:000000000000 of profile 'polite' is not active"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nprofiles: {}", "has version 2; this trimtab reads version 1"),
        ("profiles: {}", "has version None"),
        ("- 1", "has version None"),
        ("version: true\nprofiles: {}", "has version True"),
        ("version: 1", "profiles: Field required"),
        ("version: 1\nprofiles: {p: {activ: x}}", "profiles.p.activ: Extra inputs are not permitted"),
        ("version: 1\nprofiles: {p: {active: abc}}", "profiles.p.active: String should match pattern"),
        ("version: 1\nprofiles: {../p: {}}", "is no profile name"),
        ("version: 1\nprofiles: {p: {}, p: {}}", r"is not YAML \(line 2\): the key 'p' is written twice"),
        ("version: 1\nprofiles: [", r"is not YAML \(line 2\)"),
        ("version: 1\nprofiles: !!python/object:os.system {}", r"is not YAML \(line 2\): could not determine"),
        ("a: &a [x]\nb: *a\nversion: 1", "profiles: Field required"),
    ],
)
def test_a_desired_state_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "desired.yaml"
    file.write_text(text)
    with pytest.raises(FormatError, match=rf"^desired\.yaml: .*{message}"):
        Desired.read(file)


def tried(server: Rolling, event: str, result: str = "") -> int:
    """Lines of the audit log of one kind of change."""
    lines = map(json.loads, (server.state.folder / AUDIT_FILE).read_text().splitlines())
    return sum(line["event"] == event and line["result"].startswith(result) for line in lines)


POLICY = "version: 1\nrules: [{subjects: ['*'], allow: {%s: {}}}]\nenforced: [{profile: %s, alpha: 1}]\n"


def test_a_refused_policy_waits_for_a_change_of_its_file_or_of_what_is_served_or_for_a_minute(
    folder: Path, model_folder: Path, model: ModelIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % ("polite", "polite"))
    server = Rolling(folder, model_folder, tmp_path / "state", policy=policy)
    profiles = {profile.digest: profile for profile in [*server.registry.values(), version(model, 9.0, "late")]}
    refresh = Refresh(server.rollout, 1, None, policy, lambda: profiles)
    assert run(refresh.once()) == []
    good = server.now().policy
    policy.write_text(POLICY % ("late", "late"))
    [problem] = run(refresh.once())
    assert "late" in problem
    for _ in range(5):
        assert run(refresh.once()) == []
        run(refresh.turn())
        assert REGISTRY.get_sample_value("trimtab_rescan_problems") == 1
    assert (tried(server, "policy"), server.now().policy) == (1, good)
    policy.write_text(POLICY % ("later", "late"))
    assert len(run(refresh.once())) == 1
    assert run(refresh.once()) == []
    assert tried(server, "policy") == 2
    monkeypatch.setattr("trimtab.plugin.control.refresh._AGAIN", 0.0)
    refresh = Refresh(server.rollout, 1, None, policy, lambda: profiles)
    assert [len(run(refresh.once())) for _ in range(2)] == [1, 1]
    monkeypatch.undo()
    assert run(refresh.once())
    policy.write_text(POLICY % ("late", "late"))
    assert run(refresh.once())
    server.put(version(model, 9.0, "late"))  # what it speaks of has come
    assert run(refresh.once()) == []
    assert server.now().policy == file_digest(policy)
    run(refresh.turn())
    assert REGISTRY.get_sample_value("trimtab_rescan_problems") == 0


def test_a_refused_plan_waits_too(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setenv(UNIT_KEY, "a unit key of thirty-two characters")
    file = tmp_path / "plan.yaml"
    file.write_text("version: 1\nexperiments: {}\n")
    server = Rolling(folder, model_folder, tmp_path / "state", experiments=file)
    refresh = Refresh(server.rollout, 1, None, plan=file)
    assert run(refresh.once()) == []
    file.write_text("version: 1\nexperiments: {x: 1}\n")
    assert len(run(refresh.once())) == 1
    assert [run(refresh.once()) for _ in range(3)] == [[], [], []]
    assert tried(server, "experiments") == 1
    file.write_text("version: 1\nexperiments: {x: 2}\n")
    assert len(run(refresh.once())) == 1
    assert tried(server, "experiments") == 2


def test_a_desired_version_that_is_refused_waits_for_its_folder_or_its_line(made: Made, model: ModelIdentity) -> None:
    new = version(model, 7.0)
    server = made("version: 1\nprofiles:\n  polite: {active: 'sha256:000000000000'}\n")
    file = Path(server.config.desired)
    refresh = Refresh(server.rollout, 1, file)
    assert len(run(refresh.once())) == 1
    assert [run(refresh.once()) for _ in range(3)] == [[], [], []]
    assert tried(server, "serve") == 1
    file.write_text(f"version: 1\nprofiles:\n  polite: {{active: 'sha256:{new.digest}'}}\n")
    assert len(run(refresh.once())) == 1
    server.put(new)
    assert run(refresh.once()) == []
    assert active(server) == {"polite": new.digest}
    lines = len((server.state.folder / AUDIT_FILE).read_text().splitlines())
    assert run(refresh.once()) == []
    assert len((server.state.folder / AUDIT_FILE).read_text().splitlines()) == lines, "nothing was to be done"


def test_a_second_process_leaves_the_rescan_to_the_first(made: Made) -> None:
    server = made()
    first, second = (Refresh(server.rollout, 1, None) for _ in range(2))
    with first._alone() as mine, second._alone() as theirs:
        assert (mine, theirs) == (True, False)
    with second._alone() as theirs:
        assert theirs
