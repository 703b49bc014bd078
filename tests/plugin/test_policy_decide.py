"""What one request gets under a policy: laws that hold whatever is asked, and each right by example."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugin.policies import Served, digest_of, policy_of, small_registry
from trimtab.plugin.control.policy import Policy, PolicyError, parse_policy
from trimtab.plugin.control.policy.decide import NO_RULE, Asks, Decision, decide, rule_of
from trimtab.plugin.control.policy.pushback import share_undone
from trimtab.plugin.requests.request import choose
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.asked import Asked, parse
from trimtab.vectors.errors import RequestError, UnknownProfileError

MODEL = ModelIdentity(architecture="Some", hidden_size=4, num_layers=3)
REGISTRY = small_registry(MODEL)
SERVED = Served(REGISTRY)
NAMES = [*REGISTRY, "unknown"]
SUBJECTS = ["team-a", "team-b", "other", "local", None]

numbers = st.sampled_from([-2.0, -1.0, -0.02, 0.0, 0.02, 0.3, 1.0, 2.0])
_PARTS = [Asked(name, alpha) for name in NAMES for alpha in (None, -1.0, -0.02, 0.0, 0.02, 0.3, 1.0)]
ASKS: list[Asks] = [
    None,
    (),
    *((one,) for one in _PARTS),
    *((one, other) for one, other in combinations(_PARTS[::3], 2) if one.profile != other.profile),
    *(tuple(Asked(name, alpha) for name in names) for names in combinations(REGISTRY, 4) for alpha in (0.02, 0.3)),
]
CELLS = [(subject, asks) for subject in SUBJECTS for asks in ASKS]
ranges = st.tuples(numbers, numbers).map(sorted)
added = st.fixed_dictionaries({"profile": st.sampled_from(list(REGISTRY)), "alpha": numbers.filter(bool)})


WHO = [[], [["*"]], [["team-a"], ["*"]], [["team-a", "local"], ["team-*"]], [["team-*", "local"]], [["local"], ["*"]]]


@st.composite
def written(draw: st.DrawFn) -> dict[str, Any]:
    """A policy as an operator may write it; not all of them hold together."""
    grants: st.SearchStrategy[dict[str, Any]] = st.just({}) | ranges.map(lambda alpha: {"alpha": alpha})
    rules = []
    for subjects in draw(st.sampled_from(WHO)):
        # From the narrow to the wide, so that none takes the place of a later one.
        names = draw(st.lists(st.sampled_from([*REGISTRY]), max_size=3, unique=True))
        wide = draw(st.sampled_from([[], ["*e*"], ["s*", "*"], ["*"]]))
        allow = {pattern: draw(grants) for pattern in (*names, *wide)}
        rules.append({"subjects": subjects, "allow": allow, "may_opt_out": draw(st.booleans())})
    enforced = draw(st.lists(added, max_size=2, unique_by=lambda one: one["profile"]))
    limits = {
        name: draw(values)
        for name, values in {
            "profiles": st.integers(1, 4 - len(enforced)),
            "relative_dose": st.sampled_from([0.1, 0.5, 2.0]),
            "against_enforced": st.sampled_from([0.0, 0.05, 1.0]),
        }.items()
        if draw(st.booleans())
    }
    return {
        "version": 1,
        "subjects": {name: {"keys": [digest_of(name)]} for name in ("team-a", "team-b")},
        "rules": rules,
        "enforced": enforced,
        "limits": limits,
        **({"default": draw(added)} if draw(st.booleans()) else {}),
    }


@st.composite
def policies(draw: st.DrawFn) -> tuple[dict[str, Any], Policy]:
    text = draw(written())
    try:
        return text, parse_policy(json.dumps(text).encode(), REGISTRY)  # JSON is YAML
    except PolicyError:
        text.pop("default", None)  # the one part that may be beyond the others
        return text, parse_policy(json.dumps(text).encode(), REGISTRY)


def result(policy: Policy, subject: str | None, asks: Asks, served: Served = SERVED) -> Decision | RequestError:
    try:
        return decide(policy, subject, asks, served)
    except RequestError as error:
        return error


def free_of(asks: Asks) -> tuple[tuple[Profile, float], ...] | RequestError:
    """What a server without a policy gives."""
    try:
        return tuple(choose(asks or (), REGISTRY))
    except RequestError as error:
        return error


def names_of(decision: Decision) -> list[tuple[str, float]]:
    return [(profile.name, alpha) for profile, alpha in decision.profiles]


@given(policies())
@settings(max_examples=25, deadline=None)
def test_what_is_enforced_acts_with_its_strength_or_the_request_is_refused(
    found: tuple[dict[str, Any], Policy],
) -> None:
    text, policy = found
    for subject, asks in CELLS:
        decision = result(policy, subject, asks)
        if isinstance(decision, RequestError):
            continue
        names = names_of(decision)
        for one in text["enforced"]:
            assert names.count((one["profile"], one["alpha"])) == 1
            assert sum(name == one["profile"] for name, _ in names) == 1
        assert len(names) <= 4
        assert decision.added >= len(text["enforced"])


@given(policies())
@settings(max_examples=25, deadline=None)
def test_no_composition_undoes_more_of_what_is_enforced_than_the_bound(
    found: tuple[dict[str, Any], Policy],
) -> None:
    text, policy = found
    share = text["limits"].get("against_enforced", 0.05)
    enforced = [(one["profile"], one["alpha"]) for one in text["enforced"]]
    for subject, asks in CELLS if enforced else ():
        decision = result(policy, subject, asks)
        others = (
            [] if isinstance(decision, RequestError) else [one for one in names_of(decision) if one not in enforced]
        )
        additions = [alpha * row for name, alpha in enforced for row in rows_of(name)] if others else []
        for addition in additions:
            along = sum(strength * float(row @ addition) for other, strength in others for row in rows_of(other))
            length = float(np.linalg.norm(addition))
            assert along / length >= -share * length - 1e-6


def rows_of(name: str) -> list[npt.NDArray[np.float64]]:
    """What a coarse profile adds, a row per layer."""
    return [row.astype(float) for layer in REGISTRY[name].tensors.values() for row in layer.named.values()]


@given(policies())
@settings(max_examples=25, deadline=None)
def test_report_mode_changes_nothing_of_what_is_served(
    found: tuple[dict[str, Any], Policy],
) -> None:
    strict = found[1]
    policy = strict.model_copy(update={"mode": "report"})
    for subject, asks in CELLS[::3]:
        decision, judged, free = result(policy, subject, asks), result(strict, subject, asks), free_of(asks)
        if isinstance(free, RequestError):
            assert (type(decision), str(decision)) == (type(free), str(free))
            continue
        assert isinstance(decision, Decision)
        assert decision.profiles == free
        if isinstance(judged, RequestError):
            assert (decision.outcome, decision.reason) == ("would_refuse", str(judged))
        else:
            assert (decision.outcome, decision.rule) == (judged.outcome, judged.rule)


def expected(text: dict[str, Any], subject: str | None, asks: Asks) -> Any:
    """The same rights, told again from the file as plainly as can be: what is served, or None for a refusal."""
    rights = None
    for rule in text["rules"]:
        for pattern in rule["subjects"]:
            hit = pattern == "*" or (subject is not None and fnmatchcase(subject, pattern))
            rights = rule if rights is None and hit else rights
    allow = rights["allow"] if rights else {}
    enforced = [(one["profile"], one["alpha"]) for one in text["enforced"]]
    default = text.get("default")
    if asks is None:
        return ([(default["profile"], default["alpha"])] if default else []) + enforced
    if asks == ():
        return None if default and not (rights and rights["may_opt_out"]) else enforced
    own = []
    for one in asks:
        alpha = 1.0 if one.alpha is None else one.alpha
        if one.profile in dict(enforced):
            if alpha != dict(enforced)[one.profile]:
                return None
            continue
        grants = [grant for pattern, grant in allow.items() if fnmatchcase(one.profile, pattern)]
        if not grants or one.profile not in REGISTRY:
            return None
        low, high = grants[0].get("alpha", (-4.0, 4.0))
        if not low <= alpha <= high:
            return None
        own.append((one.profile, alpha))
    limits = text["limits"]
    if len(own) > min(limits.get("profiles", 4), 4 - len(enforced)):
        return None
    dose: dict[int, float] = {}
    for name, alpha in own:
        for layer, norms in REGISTRY[name].manifest.norms.items():
            if norms.hidden is None and "relative_dose" in limits:
                return None
            dose[layer] = dose.get(layer, 0) + abs(alpha) * norms.vector / (norms.hidden or 1)
    if any(total > limits.get("relative_dose", np.inf) + 1e-9 for total in dose.values()):
        return None
    for name, strength in enforced:
        parts = [(REGISTRY[other], alpha) for other, alpha in own]
        if share_undone(parts, REGISTRY[name], strength) > limits.get("against_enforced", 0.05) + 1e-9:
            return None
    return own + enforced


@given(policies())
@settings(max_examples=25, deadline=None)
def test_a_plain_telling_of_the_rules_agrees(
    found: tuple[dict[str, Any], Policy],
) -> None:
    text, policy = found
    for subject, asks in CELLS:
        decision = result(policy, subject, asks)
        served = None if isinstance(decision, RequestError) else names_of(decision)
        assert served == expected(text, subject, asks), (subject, asks)


RIGHTS = """\
    subjects: {team-a: {keys: [<team-a>]}, team-b: {keys: [<team-b>]}}
    rules:
      - subjects: [team-a]
        allow: {across: {alpha: [0, 1.2]}, "style-*": {}}
        may_opt_out: true
      - name: locals
        subjects: [local]
        allow: {"*": {}}
        may_name_versions: true
      - subjects: ["*"]
    default: {profile: style-plain, alpha: 0.5}
    enforced: [{profile: safe, alpha: 1}]
    """


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_of(RIGHTS, REGISTRY)


@pytest.mark.parametrize(
    ("subject", "asks", "served", "rule", "outcome"),
    [
        ("team-a", None, [("style-plain", 0.5), ("safe", 1.0)], "rule-1", "defaulted"),
        (None, None, [("style-plain", 0.5), ("safe", 1.0)], "rule-3", "defaulted"),
        ("team-a", "none", [("safe", 1.0)], "rule-1", "enforced"),
        ("team-a", "across", [("across", 1.0), ("safe", 1.0)], "rule-1", "allowed"),
        ("team-a", {"profile": "across", "alpha": 1.2}, [("across", 1.2), ("safe", 1.0)], "rule-1", "allowed"),
        ("team-a", "safe", [("safe", 1.0)], "rule-1", "allowed"),
        ("team-b", ["safe"], [("safe", 1.0)], "rule-3", "allowed"),
        (
            "local",
            ["across", "style-plain"],
            [("across", 1.0), ("style-plain", 1.0), ("safe", 1.0)],
            "locals",
            "allowed",
        ),
    ],
)
def test_rights_by_example(
    policy: Policy, subject: str | None, asks: Any, served: list[tuple[str, float]], rule: str, outcome: str
) -> None:
    decision = decide(policy, subject, None if asks is None else parse(asks), SERVED)
    assert (names_of(decision), decision.rule, decision.outcome) == (served, rule, outcome)


@pytest.mark.parametrize(
    ("subject", "asks", "status", "reason"),
    [
        (None, "none", 403, 'a request that is anonymous (no known key) may not ask for "none" (rule-3'),
        (
            "team-b",
            "across",
            403,
            "subject 'team-b' may not use profile 'across' (rule-3 of the access policy); allowed: none",
        ),
        ("team-b", "unknown", 403, "may not use profile 'unknown'"),
        ("team-a", "unknown", 403, "allowed: across, style-*; choose one of these"),
        ("team-a", {"profile": "across", "alpha": 1.3}, 403, "allowed is a number from 0 to 1.2"),
        ("team-a", {"profile": "across", "alpha": -1}, 403, "allowed is a number from 0 to 1.2"),
        ("team-a", {"profile": "style-plain", "alpha": 9}, 400, "allowed is a number from -4 to 4"),
        ("team-a", {"profile": "safe", "alpha": 0.5}, 403, "with alpha 1 and no other; leave it out"),
        ("team-a", {"profile": "safe", "alpha": -1}, 403, "with alpha 1 and no other; leave it out"),
        ("local", "reckless", 403, "'reckless' at these strengths may undo 1 of what the server adds with 'safe'"),
        ("local", "early", 403, "may undo 1 of what the server adds"),
        ("local", {"profile": "slanted", "alpha": 1}, 403, "may undo 0.06 of what"),
        (
            "local",
            ["across", "style-plain", "unmeasured", "slanted"],
            403,
            "names 4 profiles; the access policy allows 3",
        ),
    ],
)
def test_a_refusal_has_its_status_and_its_reason(
    policy: Policy, subject: str | None, asks: Any, status: int, reason: str
) -> None:
    error = result(policy, subject, parse(asks))
    assert isinstance(error, RequestError)
    assert (error.status, reason in str(error)) == (status, True), str(error)


def test_what_is_added_is_served_or_nothing_is() -> None:
    policy = policy_of(RIGHTS, REGISTRY)
    without = Registry([profile for profile in REGISTRY.values() if profile.name != "safe"])
    narrow = Profile.coarse(
        "safe", [SteeringVector(1, [0.0, 3.0, 0.0, 4.0])], model=MODEL, alpha=AlphaRange(default=0.1, min=0, max=0.5)
    )
    for served, reason in [
        (Served(without), "it is not loaded"),
        (Served(None), "it is not loaded"),
        (Served(REGISTRY, {"safe": "recalled"}), "recalled"),
        (Served(Registry([*without.values(), narrow])), "alpha is 1; allowed"),
        (Served(REGISTRY, {"style-plain": "recalled"}), "recalled"),
    ]:
        error = result(policy, "team-a", None, served)
        assert isinstance(error, RequestError)
        assert (error.status, reason in str(error)) == (503, True), str(error)
    # The default is not what this one asks for.
    decision = decide(policy, "team-a", parse("across"), Served(REGISTRY, {"style-plain": "recalled"}))
    assert names_of(decision) == [("across", 1.0), ("safe", 1.0)]


def test_without_a_rule_nothing_may_be_asked_for() -> None:
    policy = policy_of("enforced: [{profile: safe}]", REGISTRY)
    assert rule_of(policy, "local")[0] == NO_RULE
    assert names_of(decide(policy, None, None, SERVED)) == [("safe", 1.0)]
    assert names_of(decide(policy, None, (), SERVED)) == [("safe", 1.0)]  # there is no default to opt out of
    assert isinstance(result(policy, "local", parse("across")), RequestError)


def test_a_pattern_for_some_subjects_is_none_for_a_request_without_one() -> None:
    policy = policy_of(
        "subjects: {team-a: {keys: [<team-a>]}}\nrules: [{subjects: ['team-*', 'lo*'], allow: {'*': {}}}]"
    )
    assert rule_of(policy, None)[0] == NO_RULE
    assert rule_of(policy, "team-a")[0] == rule_of(policy, "local")[0] == "rule-1"


def test_a_profile_that_says_no_typical_state_is_refused_under_a_limit_on_the_dose() -> None:
    policy = policy_of("rules: [{subjects: ['*'], allow: {'*': {}}}]\nlimits: {relative_dose: 0.5}", REGISTRY)
    assert isinstance(result(policy, None, parse("across")), Decision)
    wishes: list[Any] = ["unmeasured", ["across", "unmeasured"]]
    for asks in wishes:
        assert "does not say how long a typical state" in str(result(policy, None, parse(asks)))
    both = [{"profile": "across", "alpha": 1}, {"profile": "slanted", "alpha": 1}]
    assert "add 0.785 times the typical state at layer 1" in str(result(policy, None, parse(both)))


def test_a_dose_and_a_share_exactly_at_the_bound_are_allowed() -> None:
    text = """\
        rules: [{subjects: ['*'], allow: {'*': {}}}]
        enforced: [{profile: safe}]
        limits: {relative_dose: 0.1, against_enforced: 0.1}
    """
    policy = policy_of(text, REGISTRY)
    assert isinstance(result(policy, None, parse({"profile": "style-plain", "alpha": 1})), Decision)
    assert isinstance(result(policy, None, parse({"profile": "style-plain", "alpha": 1.0001})), RequestError)
    assert isinstance(result(policy, None, parse({"profile": "reckless", "alpha": 0.1})), Decision)
    assert isinstance(result(policy, None, parse({"profile": "reckless", "alpha": 0.1001})), RequestError)


def test_a_rows_worst_case_counts_for_fine_profiles() -> None:
    centroids = np.arange(8.0).reshape(2, 4)
    fine = Profile.fine(
        "fine", {1: (centroids, np.array([[0.0, 0, 1, 0], [0, -3, 0, -4]]))}, model=MODEL, alpha=AlphaRange(min=-2)
    )
    enforced = Profile.fine("held", {1: (centroids, np.array([[0.0, 0, 0, 0], [0, 0, 0, 2]]))}, model=MODEL)
    assert share_undone([(fine, 1.0)], REGISTRY["safe"], 1.0) == pytest.approx(1.0)
    assert share_undone([(fine, -1.0)], REGISTRY["safe"], 1.0) == 0
    assert share_undone([(fine, 1.0)], REGISTRY["safe"], -1.0) == 0
    assert share_undone([(fine, -0.5)], REGISTRY["safe"], -1.0) == pytest.approx(0.5)
    assert share_undone([(fine, 0.25)], enforced, 1.0) == pytest.approx(0.5)  # a row of zeros holds nothing
    assert share_undone([(fine, 0.25), (REGISTRY["reckless"], 0.25)], enforced, 1.0) == pytest.approx(1.0)


def test_a_staged_version_is_for_rules_that_say_so(policy: Policy) -> None:
    digest = REGISTRY["across"].digest
    asked = (Asked("across", 1.0, digest[:12]),)
    assert names_of(decide(policy, "team-a", asked, SERVED))[0] == ("across", 1.0)  # the active one, by its digest
    with pytest.raises(RequestError):
        decide(policy, "team-a", (Asked("across", 1.0, "0" * 12),), SERVED)


def test_an_enforced_profile_with_the_default_strength_0_is_a_fault_and_later_holds_nothing() -> None:
    idle = Profile.coarse(
        "safe", [SteeringVector(1, [0.0, 3.0, 0.0, 4.0])], model=MODEL, alpha=AlphaRange(default=0.0, min=0, max=1)
    )
    served = Registry([idle, REGISTRY["reckless"]])
    text = "rules: [{subjects: ['*'], allow: {'*': {}}}]\nenforced: [{profile: safe}]"
    with pytest.raises(PolicyError, match="has the default strength 0"):
        policy_of(text, served)
    decision = decide(policy_of(text, REGISTRY), None, parse("reckless"), Served(served))
    assert names_of(decision) == [("reckless", 1.0), ("safe", 0.0)]


def test_an_unknown_name_is_told_to_those_who_may_use_any() -> None:
    policy = policy_of("rules: [{subjects: ['*'], allow: {'*': {}}}]", REGISTRY)
    error = result(policy, None, parse("acros"))
    assert isinstance(error, UnknownProfileError)
    assert (error.status, error.suggestion) == (400, "across")
