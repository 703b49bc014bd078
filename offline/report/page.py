"""The page: all that a run folder holds, in one HTML file that needs nothing else.

Nothing in it reaches out: pictures are data URLs, style and script are inline, and a content security policy forbids
the rest. The script is named by its digest there, so that no text of a finding could ever run, escaped or not.
Equal findings give equal bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..files import write_whole
from ..findings import AboutFound, Finding
from .compared import compared
from .gathered import Gathered, gather
from .header import heads
from .parts import Section
from .pictures import Pictures
from .profiles import profiles_section
from .sections import TOPICS

__all__ = ["page_of", "render", "write_report"]


def write_report(run: Path, out: Path) -> dict[str, str]:
    """Write the page of a run folder, or of a folder of findings. Returns why pictures are missing, by name.

    Raises:
        DataError: the folder holds nothing to show, or something that is broken.
        OSError: the disk refuses; what stood at `out` is still there.
    """
    pictures = Pictures(run)
    page = page_of(run.resolve().name, gather(run), pictures)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page.encode())
    return pictures.gaps


def render(name: str, findings: Mapping[str, Finding], pictures: Pictures) -> str:
    """The page of findings alone, as text. name: the title if no finding has a better one."""
    return page_of(name, Gathered(findings), pictures)


def page_of(name: str, found: Gathered, pictures: Pictures) -> str:
    """The page as text. name: the title if no finding has a better one."""
    about = heads(name, found)
    whole = [compared(found.findings), profiles_section(found.profiles, found.dictionaries)]
    sections = [*filter(None, whole), *_sections(found.findings, pictures)]
    script = _file("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=about[0].title if about else f"Findings of {name}",
            about=about,
            sections=sections,
            topics=[(topic, list(own)) for topic, own in groupby(sections, key=lambda one: one.topic)],
            gaps=pictures.gaps,
            digest=_digest(found.findings),
            version=version("trimtab"),
            style=Markup(_file("page.css")),
            script=Markup(script),
            script_digest=b64encode(sha256(script.encode()).digest()).decode(),
        )
    )


def _sections(findings: Mapping[str, Finding], pictures: Pictures) -> Iterator[Section]:
    """One section for each finding, topic by topic. The first of a topic is open, so that a long study stays short."""
    order = list(TOPICS)
    shown = [(key, found) for key, found in findings.items() if not isinstance(found, AboutFound)]
    shown.sort(key=lambda one: order.index(type(one[1])))
    seen: set[str] = set()
    for i, (key, found) in enumerate(shown, 1):
        topic, parts = TOPICS[type(found)]
        first = topic not in seen
        seen.add(topic)
        yield Section(f"finding-{i}", topic, found.title, found.note, f"{key}.json", parts(found, pictures), open=first)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(findings: Mapping[str, Finding]) -> str:
    whole = "\n".join(f"{key} {found.model_dump_json()}" for key, found in findings.items())
    return sha256(whole.encode()).hexdigest()
