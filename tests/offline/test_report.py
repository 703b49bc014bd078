"""The report as bytes: what of a run's findings reaches the page, and what never does."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from tests.offline.invented import invented_run
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError
from trimtab.offline.findings import (
    AnswersFound,
    ChoiceFound,
    Concept,
    ConceptsFound,
    ConceptShift,
    DriftFound,
    Example,
    Finding,
    Measured,
    ShiftFound,
    SweepFound,
    SweepPoint,
    TableFound,
    read_findings,
    write_finding,
)
from trimtab.offline.report import Pictures, render, write_report

ROOT = Path(__file__).parents[2]
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
ANSWERS = st.sampled_from("abcdefghijklmno")
FLOWS = st.tuples(ANSWERS, ANSWERS, st.integers(0, 500))
# What a browser does not fetch when the page opens: links inside the page, and what the page holds itself.
HARMLESS = ("#", "data:")


class Seen(HTMLParser):
    """Tags and addresses of a page, as a parser meets them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def page_of(*findings: Finding, run: Path = Path("nowhere")) -> str:
    return render("a run", {f"{found.kind}-{i}": found for i, found in enumerate(findings)}, Pictures(run))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return invented_run(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    out = run / "report.html"
    assert write_report(run, out) == {}
    return out.read_text()


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    seen = Seen(page)
    assert [address for address in seen.addresses if not address.startswith(HARMLESS)] == []
    assert seen.tags.count("script") == 1
    assert "@import" not in page
    assert [target for target in re.findall(r"url\(([^)]*)\)", page) if not target.startswith("#")] == []


def test_every_finding_has_its_section_and_its_place_in_the_contents(run: Path, page: str) -> None:
    told = [found for found in read_findings(run).values() if found.kind != "about"]
    assert page.count('<section id="finding-') == len(told) == 7
    for i, found in enumerate(told, 1):
        assert f'<h2 id="finding-{i}-title">' in page
        assert f'<a href="#finding-{i}">' in page
        assert page.count(f">{found.title}<") >= 2


def test_equal_findings_give_equal_bytes(run: Path, page: str, tmp_path: Path) -> None:
    again = invented_run(tmp_path / run.name)
    write_report(again, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page


def test_no_text_of_a_finding_becomes_markup() -> None:
    at, wide = (0.0, 1.0), Measured(value=0.5, low=0.1, high=0.9, n=3, how=ATTACK)
    shifted = ConceptShift(
        label=ATTACK, rows=1, magnitude=1, consistency=1, pairwise_consistency=1, match=ATTACK, cosine_before=0.1,
        cosine_after=0.2, recovery=1.0, overlap_before=1, overlap_after=2, words_before=(ATTACK,),
        words_after=(ATTACK,), words_match=(ATTACK,), at=at, shifted=(1.0, 1.0), match_at=(2.0, 2.0),
    )  # fmt: skip
    point = SweepPoint(series=ATTACK, layer=1, alpha=1, split="dev", gained=wide, collateral=wide, chosen=True)
    concept = Concept(label=ATTACK, rows=1, purity=1, words=(ATTACK,), images=(ATTACK,))
    example = Example(before=ATTACK, after=f"{ATTACK} b", question=ATTACK, picture=ATTACK, mark=ATTACK)
    told: dict[str, Any] = {"title": ATTACK, "note": ATTACK}
    both = {ATTACK: wide, "b": wide}
    page = page_of(
        ConceptsFound(**told, layer=1, method=ATTACK, concepts=(concept,), quality={ATTACK: 1}),
        ChoiceFound(**told, k=(1, 2), curves={ATTACK: (1, 2)}, chosen=1),
        ShiftFound(**told, layer=1, concepts=(shifted, shifted), correlations=both, controls=both),
        DriftFound(**told, steps=(1, 2), curves={ATTACK: (1, 2), "b": (3, 4)}),
        SweepFound(**told, points=(point,)),
        AnswersFound(
            title=ATTACK, note=ATTACK, steering=ATTACK, flow=((ATTACK, "b", 2),), examples=(example,), data=ATTACK
        ),
        TableFound(**told, columns=(ATTACK, "b"), rows=((ATTACK, 1),), published=(0,), command=ATTACK),
    )
    seen = Seen(page)
    assert seen.tags.count("script") == 1
    assert "img" not in seen.tags
    assert seen.handlers == []
    assert "&lt;script&gt;" in page


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.integers(0, 10**6), max_size=6, unique=True).map(sorted),
    values=st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
    many=st.integers(0, 9),
)
def test_any_curves_are_drawn_with_finite_coordinates(x: list[int], values: list[float], many: int) -> None:
    curves = {f"concept {i}": tuple(value + i for value in values[: len(x)]) for i in range(many)}
    page = page_of(DriftFound(title="t", steps=tuple(x), curves=curves))
    assert not re.search(r"[\",MLC ](nan|inf|-inf)\b", page)
    assert page.count('class="mark"') == len(x) * many


@settings(max_examples=60, deadline=None)
@given(flow=st.lists(FLOWS, max_size=5) | st.lists(FLOWS, min_size=40, max_size=60))
def test_the_flow_diagram_loses_no_changed_answer(flow: list[tuple[str, str, int]]) -> None:
    page = page_of(AnswersFound(title="t", steering="s", flow=tuple(flow)))
    drawn = re.findall(r'class="mark band[^"]*"><title>[^<]*: ([\d,]+)</title>', page)
    changed = sum(many for before, after, many in flow if before != after)
    assert sum(int(one.replace(",", "")) for one in drawn) == changed


def test_findings_without_figures_still_make_a_page() -> None:
    page = page_of(
        ConceptsFound(title="a", layer=0, method="m", concepts=()),
        ChoiceFound(title="b", k=(), curves={}),
        ShiftFound(title="c", layer=0, concepts=()),
        DriftFound(title="d", steps=(), curves={}),
        SweepFound(title="e", points=()),
        AnswersFound(title="f", steering="s", flow=()),
        TableFound(title="g", columns=("a",), rows=()),
    )
    assert page.count("<section id=") == 7


def test_figures_that_no_axis_can_hold_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be drawn on one axis"):
        page_of(DriftFound(title="t", steps=(1, 2), curves={"a": (-1.7e308, 1.7e308)}))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "no such file"),
        ("../secret.png", "its name leads out of the run"),
        ("folder/../inside.png", "its name leads out of the run"),
        ("/etc/passwd", "leads out of the run"),
        ("link.png", "link that leads out of the run"),
        ("linked/secret.png", "link that leads out of the run"),
        ("text.png", "does not open as a picture"),
        ("short.png", "does not open as a picture"),
        ("drawing.svg", "does not open as a picture"),
        ("folder", "is no file"),
        ("a\0b.png", "leads out of the run"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_a_gap_that_the_page_names(name: str, reason: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "folder").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "secret.png")
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "linked").symlink_to(tmp_path)
    Image.new("RGB", (64, 64), "red").save(run / "inside.png")
    (run / "text.png").write_text("no picture")
    (run / "short.png").write_bytes((tmp_path / "secret.png").read_bytes()[:60])
    (run / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    concept = Concept(label="man", rows=1, purity=1, images=(name,))
    write_finding(run, "a", ConceptsFound(title="t", layer=0, method="m", concepts=(concept,)))
    gaps = write_report(run, run / "report.html")
    assert list(gaps) == [name]
    assert reason in gaps[name]
    page = (run / "report.html").read_text()
    assert reason in page
    assert "data:image" not in page
    assert "could not be shown" in page


def test_a_picture_brings_its_pixels_and_nothing_else(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    Image.new("RGB", (600, 300), "red").save(tmp_path / "a.jpg", exif=exif)
    url = Pictures(tmp_path).url("a.jpg")
    assert url is not None
    assert url.startswith("data:image/webp;base64,")
    content = b64decode(url.partition(",")[2])
    assert b"secret" not in content
    with Image.open(BytesIO(content)) as shown:
        assert shown.size == (224, 112)


def test_published_rows_are_marked_as_such() -> None:
    page = page_of(
        TableFound(title="t", columns=("steering", "yes"), rows=(("paper", 90.82), ("ours", 97)), published=(0,))
    )
    assert re.findall(r'<th scope="row">(\w+)( <span class="tag">published</span>)?</th>', page) == [
        ("paper", ' <span class="tag">published</span>'),
        ("ours", ""),
    ]
    assert page.count('<tr class="published">') == 1


def test_findings_of_before_keep_loading(tmp_path: Path) -> None:
    old = '{"title": "t", "note": "", "steering": "s", "flow": [["yes", "no", 2]], "examples": [["a man", "a person"]]}'
    (tmp_path / "answers-old.json").write_text(old)
    found = read_findings(tmp_path)["answers-old"]
    assert isinstance(found, AnswersFound)
    assert [(one.before, one.after) for one in found.examples] == [("a man", "a person")]
    assert found.effect is None


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ChoiceFound, {"k": (1, 2), "curves": {"a": (1.0,)}}),
        (DriftFound, {"steps": (1,), "curves": {"a": (1.0, 2.0)}}),
        (TableFound, {"columns": ("a", "b"), "rows": (("x",),)}),
        (TableFound, {"columns": ("a",), "rows": (("x",),), "published": (1,)}),
    ],
)
def test_a_finding_whose_lengths_disagree_is_refused(kind: type[Finding], fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate({"title": "t"} | fields)


def test_the_command_writes_the_page_and_tells_what_it_left_out(tmp_path: Path) -> None:
    run = invented_run(tmp_path / "run")
    gone = json.loads((run / "concepts-answers.json").read_text())["concepts"][0]["images"][0]
    (run / gone).unlink()
    result = CliRunner().invoke(app, ["report", str(run), "--page", str(tmp_path / "pages" / "page.html")])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "pages" / "page.html")
    assert f"picture left out: {gone} (there is no such file)" in result.stderr
    assert (tmp_path / "pages" / "page.html").exists()


def test_a_folder_without_findings_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no finding" in result.stderr


def test_inspect_and_verify_know_a_run(run: Path) -> None:
    inspected = CliRunner().invoke(app, ["inspect", str(run)])
    assert inspected.exit_code == 0, inspected.output
    assert "Where yes went" in inspected.stdout
    verified = CliRunner().invoke(app, ["verify", str(run)])
    assert "run of 8 findings, whole" in verified.stdout
    refused = CliRunner().invoke(app, ["verify", str(run), "--model", str(run)])
    assert refused.exit_code == 1
    assert "leave --model out" in refused.stderr


@pytest.mark.parametrize("theme", [0, 1])
def test_text_stands_out_from_its_ground_in_both_themes(theme: int) -> None:
    style = (ROOT / "offline" / "report" / "page.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{([^}]*)\}", style)[theme]))
    for ground in ("paper", "card", "wash", "del", "ins"):
        inks = ("ink", "accent", "soft") if ground in ("paper", "card") else ("ink", "accent")[: 1 + (ground == "wash")]
        for ink in inks:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for place in range(6):
        assert contrast(colours[f"c{place}"], colours["paper"]) >= 4.5, place


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
