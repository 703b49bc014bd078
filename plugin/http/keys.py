"""The keys of a JSON body, read from its bytes as they come.

Nothing is built and nothing is kept but the open objects that are looked into, so a body costs about a nanosecond per
byte whatever it holds, and is seen before its route has parsed it. What is no JSON gives no keys or some; its route
refuses it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from trimtab.vectors.asked import FIELD
from trimtab.vectors.errors import RequestError

from ..requests.look_alikes import LIST, Look, looks_in

__all__ = ["MOST_DEPTH", "MOST_PARTS", "TURN_PARTS", "KeyReader"]

MOST_PARTS = 1_000_000
"""Strings, lists and objects that a body may have. Long prompts and pictures are one string each."""

MOST_DEPTH = 500
"""How deep lists and objects may stand in each other. At about twice that, Python's parser ends a route with a 500."""

TURN_PARTS = 1000
"""After how many of them other requests have their turn: a few milliseconds."""

_KEY_PARTS = 50  # what it takes to look at a key, in parts
_SAME_KEY_PARTS = 5  # at one that was there before: messages have the same few
_MOST_KNOWN = 1000
_LONGEST_KEY = 400  # in bytes: six for each escaped letter
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_PART = re.compile(rb'["{}\[\]]')
_SPACE = re.compile(rb"[ \t\r\n]*+")

_Path = tuple[str, ...]


class KeyReader:
    """Feeds a `Look` with the keys of one body. Run `feed` over its pieces, in order, and call `end` after the last.

    parts: how many the body has had so far. It reads no further than to the first problem that the look finds.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._head = b""  # until the encoding can be told
        self._decoder: codecs.IncrementalDecoder | None = None
        self._started = False
        self._depth = 0  # of all open objects and lists
        self._open: list[tuple[_Path, bool]] = []  # those that are looked into, from the outermost; True for a list
        self._key: str | None = None  # whose value comes next
        self._string: bytearray | None = None  # what was read of a string that is not closed
        self._escape = False  # the next byte of it is escaped
        self._closed: bytes | None = None  # a string that is a key if a colon comes next
        self.parts = 0
        self._turn = TURN_PARTS  # how many there are when it is the turn of others
        self._known: set[bytes] = set()

    def feed(self, data: bytes) -> Iterator[None]:
        """Read the next piece, and yield whenever others should have their turn: every TURN_PARTS parts.

        Raises:
            RequestError: the body has more than MOST_PARTS parts, or more than MOST_DEPTH levels.
        """
        if not self._started:
            self._head += data
            if len(self._head) < 4:
                return
            data = self._begin()
        yield from self._read(self._as_utf8(data))

    def end(self) -> None:
        """Say that the body is complete."""
        if not self._started:  # it has less than 4 bytes
            for _ in self._read(self._as_utf8(self._begin())):
                pass
        self._look.end()

    def _begin(self) -> bytes:
        encoding = json.detect_encoding(self._head)  # as the routes' own parser does
        if not encoding.startswith("utf-8"):
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._started = True
        return self._head

    def _as_utf8(self, data: bytes) -> bytes:
        return data if self._decoder is None else self._decoder.decode(data).encode("utf-8", "replace")

    def _read(self, data: bytes) -> Iterator[None]:
        at, end = 0, len(data)
        while at < end and self._look.problem is None:
            if self.parts >= self._turn:
                self._turn = self.parts + TURN_PARTS
                yield
            if self._string is not None:
                at = self._in_string(data, at)
            elif self._closed is not None:
                at = self._after_string(data, at)
            else:
                part = _PART.search(data, at)
                if part is None:
                    return
                at = part.end()
                self._take(data[at - 1])

    def _in_string(self, data: bytes, at: int) -> int:
        assert self._string is not None
        if self._escape:
            self._string += data[at : at + 1]
            self._escape, at = False, at + 1
        end = _string_end(data, at)
        if len(self._string) <= _LONGEST_KEY:
            self._string += data[at : min(end, at + _LONGEST_KEY + 1)]
        if end == len(data):
            return end
        if data[end : end + 1] == b"\\":  # the last byte of this piece
            self._string += b"\\"
            self._escape = True
            return end + 1
        self._closed = bytes(self._string) if self._looks_in else None
        self._string = None
        return end + 1

    def _after_string(self, data: bytes, at: int) -> int:
        match = _SPACE.match(data, at)
        at = at if match is None else match.end()
        if at == len(data):
            return at
        if data[at : at + 1] == b":":
            self._found_key(self._closed or b"")
        self._closed = None
        return at

    def _found_key(self, raw: bytes) -> None:
        self._key = ""
        if len(raw) <= _LONGEST_KEY:
            try:
                self._key = (
                    json.loads(b'"' + raw + b'"', strict=False)
                    if b"\\" in raw
                    else raw.decode("utf-8", "surrogatepass")
                )
            except ValueError:
                return  # no JSON: the route says so
            self._count(_KEY_PARTS if self._is_new(raw) else _SAME_KEY_PARTS)
            self._look.key(self._key, self._open[-1][0])

    def _is_new(self, raw: bytes) -> bool:
        if raw in self._known:
            return False
        if len(self._known) < _MOST_KNOWN:
            self._known.add(raw)
        return True

    @property
    def _looks_in(self) -> bool:
        """Whether the next string may be a key that counts."""
        return self._depth == len(self._open) > 0 and not self._open[-1][1]

    def _take(self, byte: int) -> None:
        self._count(1)
        if byte == 0x22:  # "
            self._string = bytearray()
        elif byte in b"{[":
            self._enter(is_list=byte == 0x5B)
        else:
            self._leave()

    def _count(self, parts: int) -> None:
        self.parts += parts
        if self.parts > MOST_PARTS:
            raise RequestError(
                f"the body has more than {MOST_PARTS:,} strings, lists and objects (a new field counts {_KEY_PARTS}), "
                f"which is more than is looked through for {FIELD!r}; send a smaller one",
                param="body",
            )

    def _enter(self, *, is_list: bool) -> None:
        if self._depth == len(self._open) and (inside := self._path_inside(is_list)) is not None:
            self._open.append((inside, is_list))
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise RequestError(
                f"the body has more than {MOST_DEPTH} lists and objects in each other; send a flatter one", param="body"
            )
        self._key = None

    def _path_inside(self, is_list: bool) -> _Path | None:
        if not self._open:
            return None if is_list else ()
        path, in_list = self._open[-1]
        if not in_list and self._key is None:  # no JSON
            return None
        step = () if in_list else (self._key or "",)
        if path[:1] == (FIELD,) and in_list:  # objects of the field's list are told apart
            return None if is_list else (*path, str(self.parts))
        if in_list and not is_list:
            return path
        inside = (*path, *step, LIST) if is_list else (*path, *step)
        return inside if looks_in(inside) else None

    def _leave(self) -> None:
        if self._depth == len(self._open) > 0:
            self._open.pop()
        self._depth = max(self._depth - 1, 0)
        self._key = None


def _string_end(data: bytes, at: int) -> int:
    """Where a string that goes on at `at` ends: at its closing quote, at a backslash that is the last byte, or nowhere.

    A picture is one string of megabytes without a backslash, which `find` passes at the speed of memory.
    """
    quote = data.find(b'"', at)
    end = len(data) if quote < 0 else quote
    escape = data.find(b"\\", at, end)
    if escape < 0:
        return end
    match = _IN_STRING.match(data, escape)
    return escape if match is None else match.end()
