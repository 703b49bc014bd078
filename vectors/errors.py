"""Every error that trimtab raises on purpose, in one tree.

    TrimtabError
    ├── VectorError            numbers that do not fit together: two layers, two sizes, a NaN
    ├── ProfileError           an artefact on disk (or about to go there) is unusable; names the file first
    │   ├── FormatError        missing, truncated, unknown field or version, wrong name, dtype or shape, too large
    │   ├── IntegrityError     the bytes are not those that were saved, or hold numbers that cannot be served
    │   └── ModelMismatchError made for another model than the one at hand
    └── RequestError           what a request asked for cannot be had; `param` is the field at fault
        ├── UnknownProfileError
        └── AlphaError

Each message says what is wrong, what is allowed and what to do. The first two branches are for whoever runs the
server or the command line; the third is for the client of an API, so it never holds a path.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache

_SHOWN_NAMES = 20
_SHOWN_CHARACTERS = 80
_NEIGHBOURS = 32
# What a terminal or a log obeys instead of showing it: controls, line ends, directions of writing; and half surrogates,
# which no encoding of a stream takes.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with everything that a terminal would obey written as an escape: one line that is safe to print."""
    return _OBEYED.sub(lambda match: ascii(match.group())[1:-1], text)


class TrimtabError(Exception):
    """Base of everything below. Whatever a file, a folder or a client called itself, the message is safe to print."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class VectorError(TrimtabError, ValueError):
    """Arrays or vectors that cannot be combined, or numbers that are not finite."""


class ProfileError(TrimtabError):
    """An artefact is unusable. The message begins with the name of the folder and file."""


class FormatError(ProfileError):
    """The artefact does not have the form that its format version promises."""


class IntegrityError(ProfileError):
    """The artefact has the right form and the wrong content: altered bytes, NaN, numbers out of range."""


class ModelMismatchError(ProfileError):
    """The artefact was made for another model."""


class RequestError(TrimtabError):
    """A request asked for what cannot be had.

    `param` is the request's field in dotted form, such as "steering.alpha". Both are safe to print: what a terminal
    obeys, and a lone surrogate, which JSON can spell, is written as its escape. `status` is the HTTP status of the
    answer: 400, 403 for what this client may not do, 503 for what the server cannot serve now.
    """

    def __init__(self, message: str, *, param: str = "steering", status: int = 400) -> None:
        super().__init__(_encodable(message))
        self.param = printable(param)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls cls(*args), which loses `param` and fails for the subclasses: errors cross process borders.
        return (_rebuild, (type(self), str(self), dict(self.__dict__)))


class UnknownProfileError(RequestError):
    """No profile of that name is loaded. `suggestion` is the nearest loaded name, or None."""

    def __init__(self, name: str, known: Iterable[str], *, param: str = "steering.profile") -> None:
        self.name = name
        self.known = tuple(sorted(known))
        # A name may be megabytes long and come from a stranger: compare and echo only its beginning.
        self.suggestion = _nearest(name[:_SHOWN_CHARACTERS].lower(), self.known)
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ";"
        super().__init__(f"unknown profile {shown(name)}{hint} loaded: {_listed(self.known)}", param=param)


class AlphaError(RequestError):
    """A strength that is no finite number or lies outside the profile's range."""

    def __init__(self, message: str, *, param: str = "steering.alpha") -> None:
        super().__init__(message, param=param)


def shown(text: str) -> str:
    """`text` in quotes, cut to what a sentence holds; control characters and lone surrogates as escapes."""
    return _encodable(repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _nearest(word: str, known: tuple[str, ...]) -> str | None:
    """The name that a misspelt word means, or None. known: sorted.

    Compares only the names that begin or end most like the word: one slip leaves one of its halves whole, and the cost
    does not grow with the number of profiles.
    """
    backwards = _backwards(known)
    candidates = {*_around(word, known), *(name[::-1] for name in _around(word[::-1], backwards))}
    # Sorted: between names that are equally near, the answer does not depend on the order of a set.
    close = difflib.get_close_matches(word, sorted(candidates), n=1)
    return close[0] if close else None


def _around(word: str, names: tuple[str, ...]) -> tuple[str, ...]:
    at = bisect_left(names, word)
    return names[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS]


@lru_cache(maxsize=2)
def _backwards(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(name[::-1] for name in names))


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES]) or "none at all"
    rest = len(names) - _SHOWN_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown


def _rebuild(cls: type[RequestError], message: str, state: dict[str, object]) -> RequestError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error
