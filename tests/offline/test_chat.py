"""The prompt of a question is the prompt that vLLM's chat route makes of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from vllm.renderers.hf import _detect_content_format, resolve_chat_template_kwargs
from vllm.transformers_utils import chat_templates

from tests.chat_utils import CHAT_UTILS
from tests.offline.test_other_models import save_qwen2_vl
from tests.offline.worlds import TEMPLATE, questions, write_data
from trimtab.offline import Reader
from trimtab.offline.cli.app import app
from trimtab.offline.concepts import class_means
from trimtab.offline.errors import ModelError, SettingError
from trimtab.offline.models.chat import Chat, ChatTemplate, content_form, template_in
from trimtab.offline.models.reader import Question
from trimtab.offline.states import Predicts, load_states, represent
from trimtab.offline.steering import coarse_profile
from trimtab.vectors import load_profile, save_profile
from trimtab.vectors.manifest import template_digest

STRING = (
    "{%- for message in messages -%}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor -%}"
    "{%- if thinking is defined and not thinking -%}(quick) {% endif -%}"
    "{%- if add_generation_prompt -%}[assistant]{%- endif -%}"
)
LOOP = "{% for part in X %}{{ part['text'] }}{% endfor %}"
SHAPES = {
    "tests": TEMPLATE,
    "string": STRING,
    "attribute": "{% for m in messages %}" + LOOP.replace("X", "m.content") + "{% endfor %}",
    "item": "{% for m in messages %}" + LOOP.replace("X", "m['content']") + "{% endfor %}",
    "filtered": "{% for m in messages %}" + LOOP.replace("X", "m['content'] | selectattr('type')") + "{% endfor %}",
    "sliced": "{% for m in messages[1:] %}" + LOOP.replace("X", "m['content'][0:]") + "{% endfor %}",
    "renamed": "{% set a = messages %}{% set b = a %}{% for m in b %}"
    + LOOP.replace("X", "m['content']")
    + "{% endfor %}",
    "bare": "{% for m in messages %}{% set content = m['content'] %}" + LOOP.replace("X", "content") + "{% endfor %}",
    "other name": "{% for m in messages %}{% set said = m['content'] %}" + LOOP.replace("X", "said") + "{% endfor %}",
    "macro": "{% macro say(x) %}"
    + LOOP.replace("X", "x")
    + "{% endmacro %}{% for m in messages %}{{ say(m.content) }}{% endfor %}",
    "macro by keyword": "{% macro say(x) %}"
    + LOOP.replace("X", "x")
    + "{% endmacro %}{% for m in messages %}{{ say(x=m.content) }}{% endfor %}",
    "macro of something else": "{% macro say(content) %}"
    + LOOP.replace("X", "content")
    + "{% endmacro %}{% for m in messages %}{{ say(m.role) }}{{ m.content }}{% endfor %}",
    "loop over tools": "{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
    "namespace": "{% set n = namespace(x=0) %}{% set n.x = messages %}{% for m in n.x %}"
    + LOOP.replace("X", "m.content")
    + "{% endfor %}",
    "pairs": "{% for m in messages %}{% for a, b in m.content %}{{ a }}{% endfor %}{% endfor %}",
    "first": LOOP.replace("X", "messages[0]['content']"),
    "generation": "{% for m in messages %}{% generation %}"
    + LOOP.replace("X", "m.content")
    + "{% endgeneration %}{% endfor %}",
    "break": "{% for m in messages %}" + LOOP.replace("X", "m.content") + "{% break %}{% endfor %}",
    "torn": "{% for m in messages %}" + LOOP.replace("X", "m.content"),
    **{path.name: path.read_text() for path in sorted(Path(chat_templates.__file__).parent.glob("*.jinja"))},
}


def served(tokenizer: Any, template: str, text: str, mark: str | None, **arguments: Any) -> str:
    """The prompt by vLLM's own functions: how it decides, how it places a picture, which arguments it lets pass."""
    if _detect_content_format(template, default="string") == "openai":
        content: Any = [*([{"type": "image"}] if mark else []), {"type": "text", "text": text}]
    else:
        content = CHAT_UTILS._get_full_multimodal_text_prompt({"image": [mark]}, [text], False) if mark else text
    given = resolve_chat_template_kwargs(tokenizer, template, {"add_generation_prompt": True, **arguments})
    turn = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(turn, chat_template=template, tokenize=False, **given))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_form_of_the_content_is_decided_as_vllm_does(shape: str) -> None:
    expected = {"openai": "parts", "string": "string"}[_detect_content_format(SHAPES[shape], default="string")]
    assert content_form(SHAPES[shape]) == expected


def test_names_that_go_round_end() -> None:
    """vLLM itself never comes back from this one."""
    assert (
        content_form("{% set a = messages %}{% set messages = a %}{% for m in messages %}{{ m }}{% endfor %}")
        == "string"
    )


def test_both_forms_come_up() -> None:
    assert {content_form(template) for template in SHAPES.values()} == {"parts", "string"}


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize("template", [TEMPLATE, STRING], ids=["parts", "string"])
def test_a_prompt_is_the_servers(llava_reader: Reader, tmp_path: Path, template: str, pictured: bool) -> None:
    (tmp_path / "t.jinja").write_text(template)
    chat = Chat(llava_reader.tokenizer, llava_reader.processor, ChatTemplate(tmp_path / "t.jinja"))
    for text in ("what is it", "yes\n", "is <image> red"):
        expected = served(llava_reader.tokenizer, template, text, "<image>" if pictured else None)
        assert chat.prompt(text, pictured) == expected


@pytest.mark.parametrize("template", [TEMPLATE, STRING], ids=["parts", "string"])
def test_a_model_that_reads_text_only_gets_the_servers_prompt(
    llama_reader: Reader, template: str, tmp_path: Path
) -> None:
    (tmp_path / "t.jinja").write_text(template)
    chat = Chat(llama_reader.tokenizer, None, ChatTemplate(tmp_path / "t.jinja"))
    assert chat.prompt("what is it", False) == served(llama_reader.tokenizer, template, "what is it", None)
    with pytest.raises(SettingError, match="text only"):
        chat.prompt("what is it", True)


def test_a_picture_in_a_string_has_the_mark_that_vllm_gives_it(llava_reader: Reader, tmp_path: Path) -> None:
    from vllm.model_executor.models.llava import LlavaForConditionalGeneration
    from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration

    save_qwen2_vl(tmp_path)
    for reader, model in (
        (llava_reader, LlavaForConditionalGeneration),
        (Reader(tmp_path), Qwen2VLForConditionalGeneration),
    ):
        assert reader.chat.picture_mark == model.get_placeholder_str("image", 1)
    without_own = Chat(llava_reader.tokenizer, llava_reader.processor)
    without_own._own = None  # a folder without a template of its own names its mark all the same
    assert without_own.picture_mark == "<image>"


@pytest.mark.parametrize("thinking", [False, True])
def test_arguments_reach_the_template_as_the_servers_do(llama_reader: Reader, tmp_path: Path, thinking: bool) -> None:
    (tmp_path / "t.jinja").write_text(STRING)
    arguments = {"thinking": thinking, "unheard_of": 3}
    chat = Chat(llama_reader.tokenizer, None, ChatTemplate(tmp_path / "t.jinja", arguments))
    expected = served(llama_reader.tokenizer, STRING, "yes", None, **arguments)
    assert chat.prompt("yes", False) == expected
    assert ("(quick)" in expected) is not thinking


def test_what_is_no_template_is_a_sentence(llama: Path, llama_reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.jinja: cannot be read as a chat template"):
        Reader(llama, template=ChatTemplate(tmp_path / "absent.jinja"))
    with pytest.raises(SettingError, match="add_generation_prompt: is set for every request"):
        Reader(llama, template=ChatTemplate(arguments={"add_generation_prompt": False}))
    (tmp_path / "torn.jinja").write_text("{% for m in messages %}")
    with pytest.raises(ModelError, match="does not take a user's turn"):
        Chat(llama_reader.tokenizer, None, ChatTemplate(tmp_path / "torn.jinja")).prompt("yes", False)


def test_a_reader_reads_the_tokens_of_the_given_template(llava: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0]['content'] }}:")
    reader = Reader(llava, template=ChatTemplate(tmp_path / "t.jinja"))
    assert reader.prompt(Question("yes")) == "yes:"
    assert reader.encode([Question("yes")])["input_ids"][0].tolist() == reader.tokenizer.encode("yes:")


def test_the_command_takes_the_servers_template_and_its_arguments(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(STRING)
    data = write_data(tmp_path / "data", 2, pictured=False)
    asked = ("represent", llama, data, "--rule", "last-prompt", "--layer", "1", "--max-new-tokens", "0")
    given = ("--chat-template", tmp_path / "t.jinja", "--chat-template-kwargs", '{"thinking": false}')
    for name, more in (("own", ()), ("given", given)):
        result = CliRunner().invoke(app, [str(one) for one in (*asked, "--out", tmp_path / name, *more)])
        assert result.exit_code == 0, result.output
    reader = Reader(llama, template=ChatTemplate(tmp_path / "t.jinja", {"thinking": False}))
    expected = [reading.stream[1][0] for reading in reader.read(questions(2, False), [1], 0)]
    np.testing.assert_allclose(load_states(tmp_path / "given", 1).values, expected, atol=1e-4)
    assert not np.allclose(load_states(tmp_path / "own", 1).values, expected, atol=1e-2)
    for kwargs in ("[1]", "{"):
        result = CliRunner().invoke(
            app, [str(one) for one in (*asked, "--out", tmp_path, "--chat-template-kwargs", kwargs)]
        )
        assert result.exit_code == 1
        assert "--chat-template-kwargs" in result.stderr


def test_the_template_of_a_folder_is_read_without_its_model(
    llama: Path, llava: Path, llama_reader: Reader, llava_reader: Reader, tmp_path: Path
) -> None:
    assert template_in(llama) == llama_reader.chat.text
    assert template_in(llava) == llava_reader.chat.text
    assert template_in(tmp_path) is None
    for name, found in (
        ("tokenizer_config.json", [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]),
        ("chat_template.json", "d"),
    ):
        (tmp_path / name).write_text(json.dumps({"chat_template": found}))
        assert template_in(tmp_path) == "d"


def test_a_profile_remembers_its_template_and_verify_says_when_another_is_the_models(
    llama_reader: Reader, llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jinja").write_text(STRING)
    given = ChatTemplate(tmp_path / "t.jinja", {"thinking": False})
    data = write_data(tmp_path / "data", 40, pictured=False)
    for name, reader in (("own", llama_reader), ("given", Reader(llama, template=given))):
        represent(reader, data, Predicts(), [2], tmp_path / name / "states", max_new_tokens=8)
        states = load_states(tmp_path / name / "states", 2)
        original, target = [word for word, _ in Counter(states.labels).most_common(2)]
        save_profile(coarse_profile(name, [states], {original: target}), tmp_path / name / "profile")
        class_means(states).save(tmp_path / name / "concepts")
        for made in ("states", "profile", "concepts"):
            result = CliRunner().invoke(app, ["verify", str(tmp_path / name / made), "--model", str(llama)])
            assert result.exit_code == 0, result.output
            assert ("was made with another chat template" in result.stderr) is (name == "given")
    assert load_profile(tmp_path / "own" / "profile").manifest.provenance.chat_template == template_digest(TEMPLATE)
    with pytest.raises(SettingError, match="another chat template"):
        represent(llama_reader, data, Predicts(), [2], tmp_path / "given" / "states", max_new_tokens=8, resume=True)
