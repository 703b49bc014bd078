"""One HTTP request gets one decision, however often it passes admission."""

from __future__ import annotations

import asyncio

import pytest
from vllm.exceptions import VLLMValidationError

from tests.plugin.test_admission import admit, extra_args_of, request_with
from trimtab.plugin.requests import admission, decided
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector


@pytest.fixture
def replaced(model: ModelIdentity) -> Registry:
    """A registry in which `polite` is another profile."""
    return Registry([Profile.coarse("polite", [SteeringVector(0, [9.0] * 4)], model=model)])


def digests(asked: object, registry: Registry) -> list[str]:
    request = request_with({"steering": asked})
    admit(request, registry)
    return [part["digest"] for part in (extra_args_of(request) or {})[WIRE_KEY]]


def test_all_prompts_of_one_http_request_get_the_version_that_the_first_one_got(
    registry: Registry, replaced: Registry
) -> None:
    before, after = registry["polite"].digest, replaced["polite"].digest
    assert before != after
    with decided.deciding() as record:
        assert digests("polite", registry) == digests("polite", replaced) == [before]
        assert [profile.digest for profile, _ in record.chosen or ()] == [before]
    with decided.deciding() as record:
        assert digests("polite", replaced) == [after]
        assert [profile.digest for profile, _ in record.chosen or ()] == [after]
    assert (digests("polite", registry), digests("polite", replaced)) == ([before], [after])  # without one
    assert decided.record() is None


def test_the_tasks_of_a_request_share_its_record_and_no_other_ones(registry: Registry) -> None:
    async def pass_admission(name: str) -> None:
        digests(name, registry)

    async def serve(name: str) -> str:
        with decided.deciding() as record:
            await asyncio.sleep(0)
            await asyncio.create_task(pass_admission(name))
            assert record.chosen is not None
            ((profile, _),) = record.chosen
            return profile.name

    async def both() -> list[str]:
        return await asyncio.gather(*map(serve, ("polite", "brief")))

    assert asyncio.run(both()) == ["polite", "brief"]


def test_an_unsteered_request_is_recorded_as_such_and_a_refused_one_is_not(registry: Registry) -> None:
    with decided.deciding() as record:
        admit(request_with(None), None)
        assert record.chosen == []
    with decided.deciding() as record:
        with pytest.raises(VLLMValidationError):
            digests("polit", registry)
        assert record.chosen is None


def test_observers_are_told_of_every_request_that_is_admitted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(admission, "observers", [told.append])
    for asked in ({"steering": ["polite", "brief"]}, None, {"steering": "none"}):
        admit(request_with(asked), registry)
    with pytest.raises(VLLMValidationError):
        admit(request_with({"steering": "polit"}), registry)
    assert told == ["polite", "brief", "none", "none"]
