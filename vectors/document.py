"""A file that an operator writes: YAML that trusts nothing, and errors that name each line at fault.

Only the plain part of YAML is read: mappings with text keys, lists, text, numbers, truths and null. What makes a small
file large (anchors), what makes it something else (tags) and what two readers understand in two ways (a key twice) is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import TrimtabError

__all__ = ["MOST_BYTES", "MOST_DEPTH", "Document", "DocumentError", "Fault", "Place", "parse_document", "read"]

MOST_BYTES = 256 << 10
"""The largest file that is read, in bytes of UTF-8."""

MOST_DEPTH = 12
"""How deep its mappings and lists may stand in each other."""

Place = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""

Fault = tuple[Place, str]
"""Where something is wrong, and what."""

_Model = TypeVar("_Model", bound=BaseModel)
_SHOWN = 5
# What pydantic says for Python, said for YAML.
_SAID = {
    "missing": "is missing",
    "model_type": "should be a mapping (`key: value`)",
    "dict_type": "should be a mapping (`key: value`)",
    "tuple_type": "should be a list (`[…]`)",
    "string_type": "should be text; put it in quotes",
}

_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


class DocumentError(TrimtabError):
    """A file that cannot be used, so that nothing of it is.

    faults: what is wrong, each with its line, 1-based, or None where no line is at fault; at least one.
    """

    def __init__(self, reason: str, line: int | None = None, *more: tuple[str, int | None]) -> None:
        self.faults = ((reason, line), *more)
        said = [text if at is None else f"line {at}: {text}" for text, at in self.faults]
        rest = [f"and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
        super().__init__("; ".join([*said[:_SHOWN], *rest]))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (*self.faults[0], *self.faults[1:]))


@dataclass(frozen=True)
class Document:
    """value: of plain Python types. lines: 1-based, by place; that of a value in a mapping is its key's."""

    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest one around it that is in the file."""
        return next(self.lines[place[:length]] for length in range(len(place), -1, -1) if place[:length] in self.lines)


def read(data: bytes) -> Document:
    """Parse a file.

    Raises:
        DocumentError: too large, too deep, not UTF-8, not YAML, or more of YAML than is read. Names the line.
    """
    if len(data) > MOST_BYTES:
        raise DocumentError(f"has {len(data)} bytes; at most {MOST_BYTES} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("is not UTF-8", data.count(b"\n", 0, error.start) + 1) from error
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"is not YAML: {error.problem or error.context}", _line(mark)) from error
    except yaml.reader.ReaderError as error:
        raise DocumentError(f"is not YAML: {error.reason}", text.count("\n", 0, error.position) + 1) from error
    except yaml.YAMLError as error:
        raise DocumentError(f"is not YAML: {error}") from error
    if node is None:
        raise DocumentError("is empty; it begins with `version: 1`")
    lines: dict[Place, int] = {(): _line(node.start_mark)}
    return Document(_plain(node, (), lines), lines)


def parse_document(
    data: bytes,
    model: type[_Model],
    unknown: str,
    *checks: Callable[[_Model], Iterable[Fault]],
    error: type[DocumentError] = DocumentError,
) -> _Model:
    """What the bytes of a file say: all of it, or an error.

    Args:
        unknown: what is said of a key that `model` does not have.
        checks: what is wrong with the parts of it together; the first that finds something ends it.
        error: what is raised.

    Raises:
        DocumentError: `error`, with all that is wrong, by line.
    """
    try:
        document = read(data)
    except DocumentError as found:
        raise error(*found.faults[0], *found.faults[1:]) from None
    try:
        value = model.model_validate(document.value)
    except ValidationError as found:
        said = {**_SAID, "extra_forbidden": unknown}
        complaints = found.errors(include_url=False, include_input=False)
        raise _error(document, [_complaint(one, said) for one in complaints], error) from None
    for check in checks:
        if faults := list(check(value)):
            raise _error(document, faults, error)
    return value


def _complaint(complaint: Any, said: Mapping[str, str]) -> Fault:
    message = str(complaint["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return tuple(part for part in complaint["loc"] if part != "[key]"), said.get(complaint["type"]) or message


def _error(document: Document, faults: Sequence[Fault], error: type[DocumentError]) -> DocumentError:
    said = [(f"{_dotted(place)}{reason}", document.line(place)) for place, reason in faults]
    (reason, line), *more = sorted(said, key=lambda fault: fault[1])
    return error(reason, line, *more)


def _dotted(place: Place) -> str:
    return f"{'.'.join(map(str, place))[:120]}: " if place else ""


def _check_events(text: str) -> None:
    """Look at the file before anything is built from it: the parser of events does not recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DocumentError("uses an anchor (& or *) of YAML, which is not read here; write the value out", line)
        if tag := getattr(event, "tag", None):
            raise DocumentError(f"uses the tag {tag!r} of YAML, which is not read here; leave it out", line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise DocumentError(f"is more than {MOST_DEPTH} levels deep", line)


def _plain(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, lines)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[*place, index] = _line(item.start_mark)
            items.append(_plain(item, (*place, index), lines))
        return items
    return _scalar(node)


def _mapping(node: yaml.MappingNode, place: Place, lines: dict[Place, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value in node.value:
        line = _line(key_node.start_mark)
        key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            said = key_node.value if isinstance(key_node, yaml.ScalarNode) else type(key).__name__
            raise DocumentError(f"the key {str(said)[:80]!r} is no text; put it in quotes", line)
        if key in found:
            raise DocumentError(f"has the key {key[:80]!r} twice", line)
        lines[*place, key] = line
        found[key] = _plain(value, (*place, key), lines)
    return found


def _scalar(node: yaml.Node) -> Any:
    if node.tag not in _PLAIN:
        kind = node.tag.rpartition(":")[2]
        raise DocumentError(
            f"YAML reads {str(node.value)[:80]!r} as a {kind}; put it in quotes if it is text", _line(node.start_mark)
        )
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError) as error:
        raise DocumentError(f"{str(node.value)[:80]!r} cannot be read: {error}", _line(node.start_mark)) from error


def _line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1
