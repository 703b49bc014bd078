"""A tokenizer made on the spot: one token per byte, so that any text is read and a blank too many shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

__all__ = ["byte_tokenizer"]

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def byte_tokenizer(specials: Sequence[str], **named: str) -> Any:
    """Tokens 0 to 2 are padding, beginning and end; then come `specials`, then the bytes.

    named: special tokens by the names under which a processor looks for them, such as image_token.
    """
    special = [PAD, BOS, EOS, *specials]
    letters = [token for token in sorted(pre_tokenizers.ByteLevel.alphabet()) if token not in special]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=list(specials),
        **({"model_specific_special_tokens": named} if named else {}),
    )
