"""Which keys were meant to be `steering`, and that no field of vLLM's is one of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any

import pytest
import vllm.entrypoints
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from trimtab.plugin.http import keys
from trimtab.plugin.http.keys import KeyReader
from trimtab.plugin.requests.look_alikes import Look, look_at
from trimtab.vectors.errors import RequestError

BESIDE = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

MISSPELT = [
    "stearing", "steerig", "steerng", "stering", "sterring", "teering", "seering", "setering", "streering", "steeering",
    "steeringg", "steerings", "Steering", "STEERING", "steeRing", "_steering", "steering_", "steering ", "s_teering",
    "steer", "steers", "steered", "steer_profile", "steering_profile", "steeringProfile", "steering-profile",
    "stearingProfile", "stering_vector", "x_steering", "xSteering", "activation_steering", "steeringVectors",
    "ｓｔｅｅｒｉｎｇ", "ѕteering", "stéering", "STEARING", "trimtab", "Trimtab", "trimtab_steering",
]  # fmt: skip
INNOCENT = [
    "stream", "streaming", "stream_options", "string", "strings", "settings", "setting", "store", "storing", "seed",
    "stop", "steps", "session_id", "metering", "metering_id", "sleeping",
    "speeding", "user", "metadata", "service_tier", "strict", "tiering", "stemming", "staring",
    "filtering", "sterling", "centering", "entering", "rendering", "ordering", "sharding", "scoring", "sorting",
    "profiler", "user_profile", "style", "sampling", "tuning", "", "é", "🦆", "1", "s", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("key", MISSPELT)
@pytest.mark.parametrize("serves", [True, False])
def test_a_misspelt_field_is_refused_with_the_right_one(key: str, serves: bool) -> None:
    with pytest.raises(RequestError, match="'steering'") as caught:
        look_at({**BESIDE, key: "polite"}, serves=serves)
    assert caught.value.param == key


@pytest.mark.parametrize("key", INNOCENT)
def test_an_unknown_field_that_means_something_else_passes(key: str) -> None:
    look_at({**BESIDE, key: "x", "metadata": {key: {key: 1}}}, serves=True)


PLACES = ["metadata", "extra_body", "extra_args", "vllm_xargs", "sampling_params", "chat_template_kwargs", "options"]


@pytest.mark.parametrize("key", ["steering", "Steering", "stearing", "steer", "trimtab"])
@pytest.mark.parametrize("place", PLACES)
def test_a_field_inside_another_object_is_refused(place: str, key: str) -> None:
    for data in ({place: {key: "polite"}}, {"sampling_params": {place: {key: "polite"}}}):
        with pytest.raises(RequestError, match="write the top-level field 'steering'") as caught:
            look_at({**BESIDE, **data}, serves=True)
        assert caught.value.param.endswith(f"{place}.{key}")


@pytest.mark.parametrize("key", ["steering", "Steering", "stearing", "steer", "trimtab"])
@pytest.mark.parametrize(
    ("data", "place"),
    [
        (lambda key: {"messages": [{"content": "x"}, {key: "polite"}]}, "messages[]"),
        (lambda key: {"messages": [[{key: "polite"}]]}, "messages[][]"),
        (lambda key: {"messages": [{"content": [{"type": "text"}, {key: "polite"}]}]}, "messages[].content[]"),
        (lambda key: {"input": [{key: "polite"}]}, "input[]"),
        (lambda key: {"metadata": [{key: "polite"}]}, "metadata[]"),
        (lambda key: {"metadata": {"tags": [1, [{"a": 1}, {key: "polite"}]]}}, "metadata.tags[][]"),
    ],
)
def test_a_field_of_one_of_a_list_is_refused(data: Any, place: str, key: str) -> None:
    with pytest.raises(RequestError, match="write the top-level field 'steering'") as caught:
        look_at({"messages": [], **data(key)}, serves=True)
    assert caught.value.param == f"{place}.{key}"


@pytest.mark.parametrize("key", ["profile", "alpha", "Profile", "profiles", "profil", "alhpa", "alphas", "ALPHA"])
@pytest.mark.parametrize("prompt", ["messages", "prompt", "input", "query", "items", "state", "token_ids"])
def test_a_part_of_the_field_beside_a_prompt_is_refused(key: str, prompt: str) -> None:
    for data in ({key: "x", prompt: "y"}, {prompt: "y", key: 1}):
        with pytest.raises(RequestError, match=r'write "steering": \{"profile": "NAME", "alpha": 0.8\}') as caught:
            look_at(data, serves=True)
        assert caught.value.param == key
    look_at({key: "x"}, serves=True)  # of a route that is asked something else


@pytest.mark.parametrize(
    "data",
    [
        {"state": {"vehicle": {"steering": "left"}}, "questions": {"steering": "?"}},
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {"steering": {"type": "number"}}}}}]},
        {"response_format": {"json_schema": {"schema": {"properties": {"steering": {}, "alpha": {}}}}}},
        {"messages": [{"role": "tool", "content": {"steering": 1}, "tool_calls": [{"steering": {"profile": 1}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "input": {"steering": 1}}]}]},
        {"structured_outputs": {"json": {"properties": {"steering": {}}}}},
        {"steering": {"profile": "polite", "alpha": 1}},
        {"metadata": {"profile": "admin", "alpha": "beta"}},
    ],
)
def test_the_clients_own_texts_tools_and_schemas_may_hold_the_word(data: dict[str, Any]) -> None:
    look_at({**BESIDE, **data}, serves=True)


def test_no_field_of_vllms_requests_is_a_look_alike() -> None:
    fields: set[str] = set()
    for module in pkgutil.walk_packages(vllm.entrypoints.__path__, "vllm.entrypoints."):
        if module.name.endswith("protocol"):
            try:
                found = vars(importlib.import_module(module.name))
            except ImportError:  # a route that needs a package of its own
                continue
            for one in found.values():
                if isinstance(one, type) and issubclass(one, BaseModel):
                    fields.update(one.model_fields)
                    fields.update(str(field.alias) for field in one.model_fields.values() if field.alias)
    assert {"messages", "prompt", "temperature", "vllm_xargs", "stream"} <= fields
    for field in fields:
        look_at({"messages": [], "input": "", "prompt": "", field: {field: 1}}, serves=True)


def read(body: bytes, sizes: list[int], *, serves: bool = True) -> str | None:
    """What reading the body in pieces finds."""
    look = Look(serves=serves)
    reader = KeyReader(look)
    while body:
        size = sizes.pop() if sizes else len(body)
        list(reader.feed(body[:size]))
        body = body[size:]
    reader.end()
    return None if look.problem is None else str(look.problem)


names = st.sampled_from(
    [
        "steering",
        "stearing",
        "steer",
        "profile",
        "alpha",
        "messages",
        "content",
        "metadata",
        "tools",
        "a",
        'q"uote',
        "back\\slash",
        "",
    ]
) | st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(names, values, max_size=5)


@given(data=bodies, sizes=st.lists(st.integers(1, 9), max_size=30), ascii=st.booleans(), serves=st.booleans())
@example(data={"a": {"b": [{"steering": 1}]}}, sizes=[1] * 40, ascii=True, serves=True)
@example(
    data={"messages": [[{"content": [{"steering": 1}], "a": {"steering": 1}}]]}, sizes=[3] * 9, ascii=True, serves=True
)
@example(data={"tools": {"steering": {"a": {}}}, "steer": 1}, sizes=[], ascii=True, serves=True)
def test_reading_the_bytes_finds_what_the_parsed_keys_hold(
    data: dict[str, Any], sizes: list[int], ascii: bool, serves: bool
) -> None:
    try:
        look_at(data, serves=serves)
        expected = None
    except RequestError as error:
        expected = str(error)
    body = json.dumps(data, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    assert read(body, sizes, serves=serves) == expected


@given(
    body=st.binary(max_size=200) | st.text('{}[]",:\\su0074ering ', max_size=60).map(str.encode), size=st.integers(1, 9)
)
def test_what_is_no_json_is_read_to_its_end(body: bytes, size: int) -> None:
    read(body, [size] * 99)


TWICE = [
    b'{"steering": "safe", "messages": [], "steering": null}',
    b'{"steering": null, "\\u0073teering": "safe"}',
    b'{"steering": {"profile": "a", "alpha": 1, "alpha": 2}}',
    b'{"steering": ["b", {"profile": "a", "profile": "c"}]}',
]


@pytest.mark.parametrize("body", TWICE)
@pytest.mark.parametrize("size", [1, 3, 999])
def test_a_field_of_ours_that_is_written_twice_is_refused(body: bytes, size: int) -> None:
    found = read(body, [size] * 99)
    assert found is not None
    assert "is written twice" in found


@pytest.mark.parametrize(
    "body",
    [
        b'{"steering": ["a", "b"], "tools": [{"steering": 1, "steering": 2}]}',
        b'{"steering": [{"profile": "a", "alpha": 1}, {"profile": "b", "alpha": 1}], "alphabet": 1}',
        b'{"user": "a", "user": "b", "steering": "a"}',
    ],
)
def test_what_is_not_ours_may_be_written_twice(body: bytes) -> None:
    assert read(body, []) is None


def test_a_body_of_countless_levels_is_not_read_on() -> None:
    for opens, closes in ((b"[", b"]"), (b'{"a":', b"}")):
        assert read(opens * keys.MOST_DEPTH + b"1" + closes * keys.MOST_DEPTH, []) is None
        with pytest.raises(RequestError, match="more than 500 lists and objects in each other"):
            read(opens * (keys.MOST_DEPTH + 1), [])
    assert read(b'{"messages": [' + b"[[{}]]," * 1000 + b"[]]}", []) is None  # one after the other


def test_a_body_of_countless_parts_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_PARTS", 1000)
    assert read(b'{"a": [' + b"1," * 10_000 + b"1]}", []) is None
    with pytest.raises(RequestError, match="more than 1,000 strings, lists and objects"):
        read(b'{"\\u0041":[' + b"[],[]," * 1000, [64] * 99)
    with pytest.raises(RequestError, match="a new field counts 50"):
        read(b"{" + b",".join(b'"%d": 1' % number for number in range(30)) + b"}", [])
    assert read(b'{"messages":[' + b",".join([b'{"role":"user"}'] * 100) + b"]}", []) is None  # a key again costs less
