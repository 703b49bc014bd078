"""The prompt that a chat server makes of a question: by which template, and in which form the template gets it.

A chat template takes a turn's content either as a list of parts (`{"type": "image"}`, `{"type": "text", …}`) or as one
string, in which the model's own mark stands for the picture. vLLM tells which by looking for a loop over the content
in the template (vllm/renderers/hf.py, `_detect_content_format`, the same in 0.29 to 0.32); `content_form` does alike.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trimtab.vectors.manifest import template_digest

from ..errors import ModelError, SettingError

__all__ = ["Chat", "ChatTemplate", "content_form", "template_in"]

_MARK = "\x02question\x02"
"""Text that no template writes by itself."""


@dataclass(frozen=True)
class ChatTemplate:
    """What a server is told with `--chat-template FILE` and `--default-chat-template-kwargs JSON`.

    file: None takes the model folder's own template. arguments: variables of the template, such as enable_thinking.
    """

    file: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self, own: str | None) -> str:
        """The template itself. own: the model folder's, if it has one.

        Raises:
            ModelError: neither has one, or the file cannot be read.
        """
        if self.file is None:
            if own is None:
                raise ModelError(
                    "the model has no chat template; add the chat_template.jinja that it is to be served with, "
                    "or give it with --chat-template"
                )
            return own
        try:
            return self.file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.file}: cannot be read as a chat template ({error})") from error


class Chat:
    """A model's prompts. text: the template that writes them. arguments: its variables, as the server has them."""

    def __init__(self, tokenizer: Any, processor: Any = None, template: ChatTemplate | None = None) -> None:
        """processor: of a model that sees; None for a model that reads text only.

        Raises:
            ModelError: no template. SettingError: an argument that the chat route sets by itself.
        """
        template = template or ChatTemplate()
        self._tokenizer = tokenizer
        self._processor = processor
        self._own = _own_template(tokenizer, processor)
        self.text = template.text(self._own)
        self.arguments = dict(template.arguments)
        reserved = set(inspect.signature(tokenizer.apply_chat_template).parameters) & set(self.arguments)
        if reserved:
            raise SettingError(
                f"{', '.join(sorted(reserved))}: is set for every request and cannot be an argument of the template"
            )
        self.form = content_form(self.text)

    @property
    def digest(self) -> str:
        """Tells templates apart, with their arguments; see `template_digest`."""
        return template_digest(self.text, self.arguments)

    def prompt(self, question: str, pictured: bool) -> str:
        """One user turn, its picture first, and the opening of the answer.

        Raises:
            SettingError: a picture for a model that reads text only. ModelError: the template does not take the turn.
        """
        if pictured and self._processor is None:
            raise SettingError("this model reads text only and was given a picture; leave the key 'image' out")
        if self.form == "parts":
            return self._render(_parts(question, pictured), self.text, self.arguments)
        # As vLLM does: a mark that the question holds already is the picture's, and nothing is put before it.
        if pictured and self.picture_mark not in question:
            question = f"{self.picture_mark}\n{question}"
        return self._render(question, self.text, self.arguments)

    @cached_property
    def picture_mark(self) -> str:
        """What stands for a picture in a string: what the model's own template writes for one, else its image token."""
        if self._own is not None and content_form(self._own) == "parts":
            without, with_picture = (self._render(_parts(_MARK, seen), self._own, {}) for seen in (False, True))
            start = _shared(without, with_picture)
            end = len(with_picture) - _shared(without[start:][::-1], with_picture[start:][::-1])
            if mark := with_picture[start:end].strip():
                return mark
        if token := getattr(self._processor, "image_token", None):
            return str(token)
        raise ModelError("the chat template takes strings, and the model's processor names no mark for a picture")

    def _render(self, content: str | list[dict[str, str]], template: str, arguments: Mapping[str, Any]) -> str:
        turn = [{"role": "user", "content": content}]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turn, chat_template=template, add_generation_prompt=True, tokenize=False, **arguments
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ModelError(f"the chat template does not take a user's turn ({error})") from error


def content_form(template: str) -> Literal["parts", "string"]:
    """In which form a chat template wants the content of a message; as vLLM decides.

    "parts" where the template loops over a message's content: by the message's name, by a macro that is given it, or
    by the bare name `content`. "string" otherwise, and where the template uses what vLLM does not follow.
    """
    environment = ImmutableSandboxedEnvironment(extensions=[_Generation, loopcontrols])
    try:
        root = environment.parse(template)
        return "parts" if any(True for _ in _content_loops(root)) else "string"
    except (TemplateSyntaxError, _NotFollowed):
        return "string"


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`, which marks an answer for training; here it is only read over."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _NotFollowed(Exception):
    """The messages, or one of them, go to something else than a plain name."""


def _name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _NotFollowed
    return target.name


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether an expression is the variable `name` (its field `key`), filtered, tested or sliced as it may be."""
    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    if key is not None:
        if isinstance(node, nodes.Getitem):
            named = isinstance(node.arg, nodes.Const) and node.arg.value == key
        else:
            named = isinstance(node, nodes.Getattr) and node.attr == key
        if not named or not isinstance(node, nodes.Getitem | nodes.Getattr):
            return False
        node = node.node
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name


def _content_loops(root: nodes.Template) -> Iterator[nodes.For]:
    """The loops over a message's content."""
    conversations = ["messages"]
    for known in conversations:  # grows while it is read
        for assigned in root.find_all(nodes.Assign):
            if _reads(assigned.node, known) and (name := _name(assigned.target)) not in conversations:
                conversations.append(name)
    loops = list(root.find_all(nodes.For))
    messages = [_name(loop.target) for loop in loops if any(_reads(loop.iter, known) for known in conversations)]

    def is_content(node: nodes.Node) -> bool:
        return any(_reads(node, message, "content") for message in messages)

    given: dict[int, set[str]] = {}
    """For each loop inside a macro, by its id: the macro's parameters that are given a message's content."""
    for macro in root.find_all(nodes.Macro):
        names = _given_content(root, macro, is_content)
        for loop in macro.find_all(nodes.For):
            given[id(loop)] = names or given.get(id(loop), set())
    for loop in loops:
        over = loop.iter.name if isinstance(loop.iter, nodes.Name) else None
        if is_content(loop.iter) or over in given.get(id(loop), {"content"}):
            _name(loop.target)
            yield loop


def _given_content(root: nodes.Template, macro: nodes.Macro, is_content: Callable[[nodes.Node], bool]) -> set[str]:
    parameters = [argument.name for argument in macro.args]
    found = set()
    for call in root.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
            found |= {name for name, value in zip(parameters, call.args, strict=False) if is_content(value)}
            found |= {word.key for word in call.kwargs if word.key in parameters and is_content(word.value)}
    return found


def _parts(question: str, pictured: bool) -> list[dict[str, str]]:
    return [*([{"type": "image"}] if pictured else []), {"type": "text", "text": question}]


def _shared(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def template_in(folder: Path) -> str | None:
    """The chat template of a model folder, read from its files without loading the model; None where it has none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            found = json.loads((folder / name).read_text("utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, list):  # several, by name
            found = {one.get("name"): one.get("template") for one in found}.get("default")
        if isinstance(found, str):
            return found
    return None


def _own_template(tokenizer: Any, processor: Any) -> str | None:
    """The model folder's template: its processor's before its tokenizer's; of several that have names, the default."""
    for holder in (processor, tokenizer):
        found = getattr(holder, "chat_template", None)
        if isinstance(found, dict):
            found = found.get("default")
        if found:
            return str(found)
    return None
