"""Requests that try to get an answer without what a policy enforces: made up by hypothesis, over every door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.engine.server import MODEL_NAME
from tests.reliability.served import ADMIN, CONSUMER, KEYS, key_of, question
from tests.reliability.words import HELD, WEAK, WORDS
from trimtab.plugin.http.routes import BATCH, CHAT, COMPLETIONS, MESSAGES, RESPONSES, STEERED

_ALPHAS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([0, 1, -1, 0.0, -0.0, 0.5, 2, 1e-30, 1e-46, 1.0000001, 1e308, True, "0", None, [], "1.0"]),
    st.floats(allow_nan=False, allow_infinity=False),
)
_ODD = (f"{HELD}@0", f"{HELD}@-1", f"{HELD}@sha256:{'0' * 12}", f"{HELD} ", HELD.upper(), f"{HELD}\0", f"../{HELD}")
_NAMES = st.sampled_from(
    [HELD, HELD, *WEAK, *WORDS, *_ODD, "none", "None", "NONE", "", "null", "hеld", "*", "weak-*", "nothing"]
)
_PART = st.one_of(
    _NAMES,
    st.builds(lambda name, alpha: {"profile": name, "alpha": alpha}, _NAMES, _ALPHAS),
    st.builds(lambda name: {"profile": name}, _NAMES),
)
_WISH = st.one_of(_PART, st.lists(_PART, max_size=5), st.none(), st.booleans(), st.integers(), st.just({}))

_MODELS = st.one_of(
    st.just(MODEL_NAME),
    st.builds(lambda name: f"{MODEL_NAME}:{name}", _NAMES),
    st.builds(lambda name, alpha: f"{MODEL_NAME}:{name}@{alpha}", _NAMES, _ALPHAS),
    st.sampled_from([f"{MODEL_NAME}:", f":{HELD}", "", f"{MODEL_NAME}::", f"{MODEL_NAME}@0", "other"]),
)

# Fields of vLLM and of ours, in and out of their place. None of them may take away what is enforced.
_MORE: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0.05, 1),
    "top_k": st.integers(-1, 20),
    "min_p": st.floats(0, 1),
    "seed": st.integers(0, 2**31),
    "n": st.integers(1, 3),
    "min_tokens": st.integers(0, 2),
    "ignore_eos": st.booleans(),
    "stream": st.booleans(),
    "echo": st.booleans(),
    "logprobs": st.sampled_from([True, False, 1, 3]),
    "prompt_logprobs": st.integers(0, 2),
    "cache_salt": st.text("ab", min_size=1, max_size=3),
    "priority": st.integers(-5, 5),
    "user": st.text(max_size=5),
    "request_id": st.text("ab-", min_size=1, max_size=5),
    "use_beam_search": st.booleans(),
    "add_generation_prompt": st.booleans(),
    "continue_final_message": st.booleans(),
    "add_special_tokens": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "include_stop_str_in_output": st.booleans(),
    "truncate_prompt_tokens": st.sampled_from([-1, 1, 2, 4]),
    "return_token_ids": st.booleans(),
    "return_tokens_as_token_ids": st.booleans(),
    "background": st.booleans(),
    "store": st.booleans(),
    "previous_response_id": st.sampled_from(["resp_0", ""]),
    "vllm_xargs": st.dictionaries(st.sampled_from(["steering", "trimtab", "x"]), st.sampled_from(["none", "[]", 0])),
    "extra_args": st.fixed_dictionaries({"trimtab": st.just([])}),
    "trimtab": st.sampled_from([[], "none", None]),
    "sampling_params": st.just({"extra_args": {"trimtab": []}}),
    "kv_transfer_params": st.just({"do_remote_decode": True}),
    "metadata": st.dictionaries(st.sampled_from(["steering", "user"]), st.just("none")),
    "chat_template_kwargs": st.just({"steering": "none"}),
    "policy": st.just("none"),
    "subject": st.just("local"),
    "experiment": st.just("none"),
}  # fmt: skip
# What docs/policy.md says may work against any steering: the answer's words show nothing then, its headers still do.
_AGAINST: dict[str, st.SearchStrategy[Any]] = {
    "logit_bias": st.just({"477": -100}),
    "allowed_token_ids": st.just([5, 6, 7]),
    "bad_words": st.just(["is"]),
    "stop": st.sampled_from(["is", [" is"]]),
    "stop_token_ids": st.just([477]),
    "repetition_penalty": st.floats(1.5, 2.0),
    "structured_outputs": st.just({"choice": ["yes", "no"]}),
}
_TEXTS = st.sampled_from(["who?", "describe the picture.", "is is is is", "<assistant>", "say arm", "\n", "a" * 300])


@dataclass(frozen=True)
class Attempt:
    """One request. plain: nothing in it works on the words of the answer, so that these show what acted."""

    path: str
    headers: list[tuple[str, str]]
    body: dict[str, Any]
    plain: bool
    prompt: str = field(default="")


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    path = draw(st.sampled_from(sorted(STEERED)))
    text = draw(_TEXTS)
    body = {"model": MODEL_NAME, **question(path, draw(st.integers(1, 3)), text)}
    # Some fields at a time: a request with all of them is refused for one that is not known.
    chosen = draw(st.lists(st.sampled_from(sorted(_MORE)), max_size=3, unique=True))
    body |= {name: draw(_MORE[name]) for name in chosen}
    if draw(st.integers(0, 2)):
        body["steering"] = draw(_WISH)
    if draw(st.integers(0, 3)) == 0:
        body["model"] = draw(_MODELS)
    against = draw(st.lists(st.sampled_from(sorted(_AGAINST)), max_size=1)) if draw(st.integers(0, 5)) == 0 else []
    body |= {name: draw(_AGAINST[name]) for name in against}
    if path in (CHAT, BATCH, MESSAGES) and draw(st.integers(0, 9)) == 0:
        against = ["prefilled"]
        turn = {"role": "assistant", "content": "arm arm"}
        body["messages"] = (
            [[*turns, turn] for turns in body["messages"]] if path == BATCH else [*body["messages"], turn]
        )
    if path == COMPLETIONS and draw(st.booleans()):
        body["prompt"] = draw(st.sampled_from([[text, text], [5, 6], [[5, 6], [7]], [477]]))
    if path == RESPONSES and draw(st.integers(0, 5)) == 0:
        body["instructions"] = text
    return Attempt(path, draw(_headers(path)), body, plain=not against, prompt=text)


@st.composite
def _headers(draw: st.DrawFn, path: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    who = draw(st.sampled_from(["nobody", *KEYS, "admin", "unknown", "two"]))
    if who in KEYS:
        found += key_of(path, KEYS[who]).items()
    elif who == "two":
        found += [("Authorization", f"Bearer {key}") for key in KEYS.values()]
    elif who != "nobody":
        found += key_of(path, ADMIN if who == "admin" else "sk-unknown").items()
    more = draw(st.lists(st.sampled_from(_HEADERS), max_size=2))
    return [*found, *more]


_HEADERS = (
    (CONSUMER, "local"),
    (CONSUMER, "team-a"),
    (CONSUMER, "*"),
    (CONSUMER, ""),
    ("X-Steering-Admin-Key", ADMIN),
    ("X-Steering-Subject", "local"),
    ("X-Request-Id", "a"),
    ("X-Session-ID", "a"),
    ("X-data-parallel-rank", "0"),
    ("X-Vllm-Priority", "1"),
    ("Content-Type", "application/json; charset=utf-16"),
    ("Forwarded", "for=127.0.0.1"),
)
