"""The text of a policy: YAML that trusts nothing, and the line of each value.

Only the plain part of YAML is read: mappings with text keys, lists, text, numbers, truths and null. What makes a small
file large (anchors), what makes it something else (tags) and what two readers understand in two ways (a key twice) is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import PolicyError

__all__ = ["MOST_BYTES", "MOST_DEPTH", "Document", "Place", "read"]

MOST_BYTES = 256 << 10
"""The largest policy that is read, in bytes of UTF-8."""

MOST_DEPTH = 12
"""How deep its mappings and lists may stand in each other."""

Place = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""

_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


@dataclass(frozen=True)
class Document:
    """value: of plain Python types. lines: 1-based, by place; that of a value in a mapping is its key's."""

    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest one around it that is in the file."""
        return next(self.lines[place[:length]] for length in range(len(place), -1, -1) if place[:length] in self.lines)


def read(data: bytes) -> Document:
    """Parse a policy.

    Raises:
        PolicyError: too large, too deep, not UTF-8, not YAML, or more of YAML than is read. Names the line.
    """
    if len(data) > MOST_BYTES:
        raise PolicyError(f"has {len(data)} bytes; a policy has at most {MOST_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError("is not UTF-8", data.count(b"\n", 0, error.start) + 1) from error
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError(f"is not YAML: {error.problem or error.context}", _line(mark)) from error
    except yaml.reader.ReaderError as error:
        raise PolicyError(f"is not YAML: {error.reason}", text.count("\n", 0, error.position) + 1) from error
    except yaml.YAMLError as error:
        raise PolicyError(f"is not YAML: {error}") from error
    if node is None:
        raise PolicyError("is empty; it begins with `version: 1`")
    lines: dict[Place, int] = {(): _line(node.start_mark)}
    return Document(_plain(node, (), lines), lines)


def _check_events(text: str) -> None:
    """Look at the file before anything is built from it: the parser of events does not recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise PolicyError("uses an anchor (& or *) of YAML, which a policy may not; write the value out", line)
        if tag := getattr(event, "tag", None):
            raise PolicyError(f"uses the tag {tag!r} of YAML, which a policy may not; leave it out", line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise PolicyError(f"is more than {MOST_DEPTH} levels deep", line)


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
            raise PolicyError(f"the key {str(said)[:80]!r} is no text; put it in quotes", line)
        if key in found:
            raise PolicyError(f"has the key {key[:80]!r} twice", line)
        lines[*place, key] = line
        found[key] = _plain(value, (*place, key), lines)
    return found


def _scalar(node: yaml.Node) -> Any:
    if node.tag not in _PLAIN:
        kind = node.tag.rpartition(":")[2]
        raise PolicyError(
            f"YAML reads {str(node.value)[:80]!r} as a {kind}; put it in quotes if it is text", _line(node.start_mark)
        )
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError) as error:
        raise PolicyError(f"{str(node.value)[:80]!r} cannot be read: {error}", _line(node.start_mark)) from error


def _line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1
