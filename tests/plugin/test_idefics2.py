"""Idefics2's prompts and patches are transformers' own: told from ids and masks, without an engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import Idefics2ImageProcessor, Idefics2Processor, PreTrainedTokenizerFast
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionEmbeddings

from tests.architectures.byte_tokens import byte_tokenizer
from tests.architectures.idefics2 import AROUND, END, IMAGE
from trimtab.plugin.architectures.idefics2_patches import position_ids, whole_patches
from trimtab.plugin.architectures.idefics2_prompt import spaced, surrounded

SPECIAL = [IMAGE, AROUND, END]


def _letters(kind: str) -> Any:
    """A tokenizer of letters that treats blanks as SentencePiece's do. Legacy ones write one before any text."""
    letters = ["<unk>", "<s>", "</s>", *SPECIAL, "▁", *"abcdefghijklmnopqrstuvwxyz<>_.?\n"]
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, [], unk_token="<unk>"))
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL,
    )


TOKENIZERS = {
    "bytes": byte_tokenizer(SPECIAL),
    **{kind: _letters(kind) for kind in ("legacy", "always", "first", "never")},
}
PIECES = st.lists(st.sampled_from([*SPECIAL, "what", "is it?", " ", "\n", "<", "<s", " no", "."]), max_size=9)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(pieces=PIECES, latents=st.integers(1, 3), splitting=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_prompt_has_the_ids_that_transformers_makes_of_its_text(
    kind: str, pieces: list[str], latents: int, splitting: bool
) -> None:
    tokenizer, text = TOKENIZERS[kind], "".join(pieces)
    processor = Idefics2Processor(
        Idefics2ImageProcessor(do_image_splitting=splitting), tokenizer, image_seq_len=latents
    )
    expected = processor(text=text, add_special_tokens=False)["input_ids"][0]
    image, around = tokenizer.convert_tokens_to_ids([IMAGE, AROUND])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    between = [*[image] * latents, *[around, *[image] * latents] * (4 if splitting else 0)]
    found = spaced(surrounded(ids, image, around), around, tokenizer)
    assert [new for token in found for new in (between if token == image else [token])] == list(expected)


def test_ids_that_no_text_has_stay_as_they_are() -> None:
    tokenizer = _letters("first")
    image, around, unknown = tokenizer.convert_tokens_to_ids([IMAGE, AROUND, "<unk>"])
    prompt = [image, unknown, *tokenizer.convert_tokens_to_ids(list("what"))]
    assert spaced(surrounded(prompt, image, around), around, tokenizer) == [around, image, around, *prompt[1:]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [10, 27, 70])
def test_patches_get_the_position_embeddings_of_transformers(side: int, dtype: torch.dtype) -> None:
    seen: list[torch.Tensor] = []
    embeddings = Idefics2VisionEmbeddings(Idefics2VisionConfig(hidden_size=4, image_size=2 * side, patch_size=2))
    embeddings.position_embedding.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    embeddings.to(dtype)
    for height in range(1, side + 1):
        patches = torch.zeros(2, side, side, dtype=torch.bool)
        patches[0, :height, : side + 1 - height] = True
        patches[1, : max(1, height // 2), :height] = True
        embeddings(torch.zeros(2, 3, 2 * side, 2 * side, dtype=dtype), patches)
        torch.testing.assert_close(position_ids(patches, side, dtype), seen.pop(), rtol=0, atol=0)


def test_a_patch_counts_when_none_of_its_pixels_is_padding() -> None:
    mask = torch.zeros(2, 8, 12, dtype=torch.bool)
    mask[0, :7, :8] = True
    mask[1] = True
    assert whole_patches(mask, 4).tolist() == [[[True, True, False], [False] * 3], [[True] * 3, [True] * 3]]


def test_it_is_registered_once_where_vllm_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import ModelRegistry

    from trimtab.plugin import architectures

    (name,) = architectures.BROUGHT
    models = dict(ModelRegistry.models)
    ours = models.pop(name, None)  # another test may have installed the plugin in this process
    assert getattr(ours, "module_name", "trimtab.").startswith("trimtab."), "vLLM has its own by now"
    monkeypatch.setattr(ModelRegistry, "models", models)
    architectures.register()
    other = models[name]
    architectures.register()
    assert models[name] is other
