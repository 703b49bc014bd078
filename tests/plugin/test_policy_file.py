"""A policy is read whole or refused whole, and the error names the line."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.policies import KEYS, digest_of, policy_of, small_registry
from trimtab.plugin.control.policy import Policy, PolicyError, parse_policy, read_policy
from trimtab.vectors import ModelIdentity
from trimtab.vectors.document import MOST_BYTES, MOST_DEPTH, read

A, B = digest_of("a"), digest_of("b")
WHOLE = f"""\
version: 1
mode: report
subjects:
  team-a: {{keys: ["{A}", "{B}"]}}
  gateway: {{keys: ["{digest_of("g")}"], subject_from: X-Consumer}}
rules:
  - subjects: [team-a]
    allow: {{safe: {{alpha: [0, 1.2]}}, "style-*": {{alpha: [-1, 1]}}}}
    experiments: [some-alpha]
    may_opt_out: true
  - name: everybody
    subjects: ["*"]
    allow: {{}}
default: {{profile: across, alpha: 0.8}}
enforced:
  - {{profile: safe, alpha: 1.0}}
limits: {{profiles: 3, relative_dose: 0.6, against_enforced: 0.05}}
missing_profile: refuse
"""


def faults_of(text: str | bytes, registry: Any = None) -> list[tuple[int | None, str]]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode() if isinstance(text, str) else text, registry)
    return [(line, reason) for reason, line in caught.value.faults]


def test_a_whole_policy_is_read_as_it_is_written(model: ModelIdentity) -> None:
    policy = parse_policy(WHOLE.encode(), small_registry(model))
    assert policy.mode == "report"
    assert policy.subjects["team-a"].keys == (A.removeprefix("sha256:"), B.removeprefix("sha256:"))
    assert policy.subjects["gateway"].subject_from == "x-consumer"
    assert policy.rules[0].allow["safe"].alpha == (0, 1.2)
    assert [policy.label(index) for index in range(2)] == ["rule-1", "everybody"]
    assert policy.default is not None
    assert (policy.default.profile, policy.default.alpha) == ("across", 0.8)
    assert policy.limits.against_enforced == 0.05


def test_the_digest_is_of_the_meaning_and_of_the_order() -> None:
    same = parse_policy(("# a comment\n" + WHOLE.replace("[0, 1.2]", "[0.0, 1.20]")).encode())
    assert same.digest == parse_policy(WHOLE.encode()).digest
    swapped = WHOLE.replace(
        'safe: {alpha: [0, 1.2]}, "style-*": {alpha: [-1, 1]}', '"style-*": {alpha: [-1, 1]}, safe: {alpha: [0, 1.2]}'
    )
    others = [
        swapped,
        WHOLE.replace("1.2", "1.3"),
        WHOLE.replace("report", "enforce"),
        WHOLE.replace(A, digest_of("c")),
    ]
    assert len({parse_policy(text.encode()).digest for text in (WHOLE, *others)}) == 5


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("version: 1", "version: 2", 1, "version: should be 1"),
        ("mode: report", "mode: dream", 2, "mode: should be 'enforce' or 'report'"),
        ("mode: report", "mood: report", 2, "mood: is no key of a policy"),
        (f'"{A}", ', '"secret-key", ', 4, "is no digest of a key"),
        (f'"{A}", ', f'"{A[:-1]}", ', 4, "is no digest of a key"),
        (f'"{A}", ', f'"{A.upper()}", ', 4, "is no digest of a key"),
        (f'"{A}", ', f'"{digest_of("")}", ', 4, "an empty key, which everybody has"),
        (f'"{A}", ', f'"{B}", ', 4, "is there twice"),
        (digest_of("g"), A, 5, "is a key of 'team-a' too"),
        (f'keys: ["{digest_of("g")}"], ', "", 5, "a gateway needs `keys`"),
        ("X-Consumer", "Authorization", 5, "is no header for a subject"),
        ("X-Consumer", "X Consumer", 5, "is no header for a subject"),
        ("  team-a:", "  local:", 4, "'local' is reserved"),
        ("  team-a:", "  '*':", 4, "is no name of a subject"),
        ("subjects: [team-a]", "subjects: []", 7, "at least 1 item"),
        ("subjects: [team-a]", "subjects: ['*']", 12, "'*' is never reached: '*' stands before it"),
        ("subjects: [team-a]", "subjects: [team-a, 'team-*', team-b]", 7, "'team-b' is never reached: 'team-*'"),
        ("subjects: [team-a]", "subjects: ['team-?']", 7, "is no pattern of subjects"),
        (
            "allow: {safe: {alpha: [0, 1.2]}, ",
            "allow: {'s*e': {}, safe: {alpha: [0, 1.2]}, ",
            8,
            "'safe' is never reached",
        ),
        ("[0, 1.2]", "[1.2, 0]", 8, "alpha from 1.2 to 0 is an empty range"),
        ("[0, 1.2]", "[0, .inf]", 8, "finite number"),
        ("[0, 1.2]", "[0, .nan]", 8, "finite number"),
        ("[0, 1.2]", "[0, 1, 2]", 8, "at most 2 items"),
        ("[0, 1.2]", "[0, true]", 8, "valid number"),
        ("[0, 1.2]", '[0, "1"]', 8, "valid number"),
        ("[0, 1.2]", "[0, 1001]", 8, "less than or equal to 1000"),
        ('"style-*"', '"style-**"', 8, "has '**'"),
        ("name: everybody", "name: rule-1", 11, "'rule-1' is the name of an earlier rule"),
        ("profile: across", "profile: none", 14, "'none' is reserved"),
        ("profile: across", "profile: safe", 14, "'safe' is enforced already"),
        ("safe, alpha: 1.0", "safe, alpha: 0", 16, "has alpha 0, which does nothing"),
        (
            "  - {profile: safe, alpha: 1.0}",
            "  - {profile: safe}\n  - {profile: safe, alpha: 2}",
            17,
            "'safe' is enforced twice",
        ),
        ("profiles: 3", "profiles: 4", 17, "a request takes 4 profiles, 1 of them enforced; allowed are 1 to 3"),
        ("profiles: 3", "profiles: 0", 17, "greater than or equal to 1"),
        ("relative_dose: 0.6", "relative_dose: 0", 17, "greater than 0"),
        ("against_enforced: 0.05", "against_enforced: -0.1", 17, "greater than or equal to 0"),
        ("missing_profile: refuse", "missing_profile: ignore", 18, "should be 'refuse'"),
    ],
)
def test_a_fault_is_named_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in WHOLE
    [(found, said), *_] = faults_of(WHOLE.replace(old, new, 1))
    assert found == line
    assert reason in said


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("{safe: {alpha: [0, 1.2]}", "{saef: {alpha: [0, 1.2]}", 8, "unknown profile 'saef'; did you mean 'safe'?"),
        ("[0, 1.2]", "[4.5, 5]", 8, "outside what 'safe' allows (-4 to 4), so that nothing is left"),
        ("profile: across", "profile: acros", 14, "unknown profile 'acros'"),
        ("alpha: 0.8", "alpha: 5", 14, "'across': alpha is 5; allowed is a number from -4 to 4"),
        ("alpha: 0.8", "alpha: 3", 14, "times the typical state at layer 1; the access policy allows 0.6"),
        ("profile: across", "profile: reckless", 14, "may undo 0.8 of what the server adds with 'safe'"),
        ("profile: safe, alpha: 1.0", "profile: sure, alpha: 1.0", 16, "unknown profile 'sure'"),
        ("profile: safe, alpha: 1.0", "profile: safe, alpha: -9", 16, "'safe': alpha is -9; allowed"),
    ],
)
def test_what_does_not_fit_the_profiles_is_named_with_its_line(
    old: str, new: str, line: int, reason: str, model: ModelIdentity
) -> None:
    changed = WHOLE.replace(old, new, 1)
    parse_policy(changed.encode())  # only against profiles is it wrong
    [(found, said), *more] = faults_of(changed, small_registry(model))
    assert (found, more) == (line, [])
    assert reason in said


def test_all_faults_of_a_kind_are_told_at_once_in_the_order_of_the_file() -> None:
    text = WHOLE.replace("mode: report", "mode: dream").replace("profiles: 3", "profiles: 9").replace("refuse", "drop")
    assert [line for line, _ in faults_of(text)] == [2, 17, 18]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", None, "is empty"),
        (b"- 1\n", 1, "should be a mapping"),
        (b"version: 1\nversion: 1\n", 2, "has the key 'version' twice"),
        (b"version: 1\nrules: &r []\n", 2, "uses an anchor"),
        (b"version: 1\nrules: *r\n", 2, "uses an anchor"),
        (b"version: 1\nmode: !!python/object/apply:os.system [ls]\n", 2, "uses the tag"),
        (b"version: 1\nmode: 2026-11-27\n", 2, "reads '2026-11-27' as a timestamp"),
        (b"version: 1\nmode: [\n", 3, "is not YAML"),
        (b"version: 1\n\tmode: x\n", 2, "is not YAML"),
        (b"version: 1\nmode: \xff\n", 2, "is not UTF-8"),
        (b"version: 1\nmode: \x07\n", 2, "is not YAML"),
        (b"version: 1\nsubjects: {12: {}}\n", 2, "the key '12' is no text"),
        (b"version: 1\nsubjects: {<<: {}}\n", 2, "reads '<<' as a merge"),
        (b"version: 1\n---\nversion: 1\n", 2, "is not YAML"),
        (b"version: " + b"9" * 5000, 1, "cannot be read"),
        (b"version: 1\n" + b"#" * MOST_BYTES, None, f"at most {MOST_BYTES}"),
        (b"[" * 60_000, 1, f"more than {MOST_DEPTH} levels"),
        (b"{a: " * 60_000, 1, f"more than {MOST_DEPTH} levels"),
        (b"- " * 60_000, 1, f"more than {MOST_DEPTH} levels"),
    ],
    ids=range(19),
)
def test_a_hostile_file_is_refused_with_its_line(data: bytes, line: int | None, reason: str) -> None:
    [(found, said), *_] = faults_of(data)
    assert (found, reason in said) == (line, True), said


@given(st.binary(max_size=200) | st.text(alphabet="versionmd:1[]{}- \n\"'#*&!|>", max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_policy_error(data: bytes) -> None:
    with contextlib.suppress(PolicyError):
        assert isinstance(parse_policy(data), Policy)


def test_a_key_that_was_written_out_is_not_repeated() -> None:
    for text in (WHOLE.replace(A, "sk-very-secret"), WHOLE.replace("sha256:" + A[7:], "plain:sk-very-secret")):
        assert all("very-secret" not in reason for _, reason in faults_of(text))


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "one.yaml").write_text(WHOLE)
    assert read_policy(tmp_path / "one.yaml").digest == parse_policy(WHOLE.encode()).digest


def test_a_subject_that_only_a_gateway_can_name_needs_a_gateway() -> None:
    assert policy_of("subjects: {team-a: {}, gateway: {keys: [<gateway>], subject_from: X-Id}}").subjects["team-a"]
    assert faults_of("version: 1\nsubjects: {team-a: {}}\n")[0][1].startswith("subjects.team-a: has no key")
    gateway = "subjects: {gateway: {keys: [<gateway>], subject_from: X-Id}}\nrules: [{subjects: [anyone]}]"
    assert policy_of(gateway).has_gateway
    unknown = (
        f"version: 1\nsubjects: {{team-a: {{keys: ['{digest_of(KEYS['team-a'])}']}}}}\nrules: [{{subjects: [team-x]}}]"
    )
    assert "'team-x' is no subject; there are local, team-a, and '*'" in faults_of(unknown)[0][1]


def test_a_policy_error_survives_a_process_border() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(WHOLE.replace("report", "dream").replace("refuse", "drop").encode())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.faults) == (str(caught.value), caught.value.faults)


def test_words_of_yaml_that_are_no_text_stay_what_they_are() -> None:
    assert read(b"a: yes\nb: '1'\nc: 1.5\nd: null\ne: [x]\n").value == {
        "a": True,
        "b": "1",
        "c": 1.5,
        "d": None,
        "e": ["x"],
    }
