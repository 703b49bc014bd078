"""Which model it is: sizes of the text decoder, and a fingerprint that every training step changes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import FormatError
from trimtab.vectors.identity import fingerprint

LLAVA_ON_THE_HUB = {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "llama"}}


def weights(scale: float = 1.0) -> dict[str, np.ndarray]:
    """About 2.4 MB, so that it is sampled and not read whole."""
    tensors = {f"model.layers.{layer}.mlp.weight": np.full((256, 384), scale, np.float32) for layer in range(6)}
    return tensors | {f"model.layers.{layer}.norm.weight": np.full(16, scale, np.float32) for layer in range(6)}


def write(folder: Path, tensors: dict[str, np.ndarray], name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def config(folder: Path, **fields: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_the_same_weights_have_the_same_fingerprint_wherever_they_lie(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", weights()), write(tmp_path / "b", weights())
    assert (a / "model.safetensors").stat().st_size > 1 << 20
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(a).startswith("sampled-sha256:")
    (b / "model.safetensors").rename(tmp_path / "blob")
    (b / "model.safetensors").symlink_to(tmp_path / "blob")  # as the Hub's cache does
    assert fingerprint(a) == fingerprint(b)


@pytest.mark.parametrize("name", list(weights()))
def test_a_step_that_changes_one_tensor_changes_the_fingerprint(tmp_path: Path, name: str) -> None:
    before = fingerprint(write(tmp_path / "a", weights()))
    trained = weights()
    trained[name] = trained[name] + np.float32(1e-6)
    assert fingerprint(write(tmp_path / "a", trained)) != before


def test_a_change_of_shape_name_or_shard_changes_the_fingerprint(tmp_path: Path) -> None:
    tensors = weights()
    reshaped = {**tensors, "model.layers.0.mlp.weight": np.ones((384, 256), np.float32)}
    renamed = {name.replace("mlp", "ffn"): array for name, array in tensors.items()}
    folders = [write(tmp_path / str(index), variant) for index, variant in enumerate([tensors, reshaped, renamed])]
    folders.append(write(write(tmp_path / "3", tensors), {"extra": np.ones(3, np.float32)}, "model-2.safetensors"))
    assert len({fingerprint(folder) for folder in folders}) == 4


def test_small_files_are_read_whole(tmp_path: Path) -> None:
    array = np.zeros(100_000, np.float32)
    before = fingerprint(write(tmp_path / "a", {"w": array}))
    array[33_333] = 1
    assert fingerprint(write(tmp_path / "a", {"w": array})) != before


def test_of_reads_the_sizes_of_the_text_decoder(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", weights())
    config(folder, architectures=["LlamaForCausalLM"], hidden_size=16, num_hidden_layers=6)
    plain = ModelIdentity.of(folder)
    assert (plain.architecture, plain.hidden_size, plain.num_layers) == ("LlamaForCausalLM", 16, 6)
    assert plain.fingerprint == fingerprint(folder)
    text = {"hidden_size": 8, "num_hidden_layers": 2}
    config(folder, architectures=["X"], hidden_size=99, text_config=text, vision_config={"hidden_size": 7})
    assert (ModelIdentity.of(folder).hidden_size, ModelIdentity.of(folder).num_layers) == (8, 2)
    config(folder, architectures=["GPT2LMHeadModel"], n_embd=16, n_layer=3)
    assert (ModelIdentity.of(folder).hidden_size, ModelIdentity.of(folder).num_layers) == (16, 3)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "model.text_model."])
def test_sizes_that_the_config_leaves_out_come_from_the_decoders_weights(tmp_path: Path, prefix: str) -> None:
    vision = "vision_tower.vision_model." if prefix.startswith("language") else "model.vision_tower.vision_model."
    tensors = {
        f"{prefix}embed_tokens.weight": np.ones((10, 8), np.float32),
        f"{prefix}layers.11.mlp.weight": np.ones((8, 8), np.float32),
        f"{prefix}layers.2.mlp.weight": np.ones((8, 8), np.float32),
        f"{vision}encoder.layers.23.mlp.weight": np.ones((4, 4), np.float32),
        "model.connector.perceiver_resampler.layers.40.weight": np.ones((4, 4), np.float32),
    }
    identity = ModelIdentity.of(config(write(tmp_path / "m", tensors), **LLAVA_ON_THE_HUB))
    assert (identity.hidden_size, identity.num_layers) == (8, 12)


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^m/config\.json: is missing or names no architecture"):
        ModelIdentity.of(tmp_path / "m")
    config(tmp_path / "m", architectures=[])
    with pytest.raises(FormatError, match="names no architecture"):
        ModelIdentity.of(tmp_path / "m")
    config(tmp_path / "m", architectures=["X"], hidden_size=4, num_hidden_layers=2)
    with pytest.raises(FormatError, match=r"^m: holds no \*\.safetensors"):
        ModelIdentity.of(tmp_path / "m")
    write(tmp_path / "m", {"w": np.ones(3, np.float32)})
    config(tmp_path / "m", architectures=["X"], hidden_size="4", num_hidden_layers=2)
    with pytest.raises(FormatError, match="hidden_size"):
        ModelIdentity.of(tmp_path / "m")
    config(tmp_path / "m", **LLAVA_ON_THE_HUB)
    with pytest.raises(FormatError, match="gives no hidden_size"):
        ModelIdentity.of(tmp_path / "m")


@pytest.mark.parametrize(
    "start", [struct.pack("<Q", 2**63), struct.pack("<Q", 3) + b"[1]", b"\x80\x02", struct.pack("<Q", 2) + b"{x"]
)
def test_large_weights_without_a_readable_header_are_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(start + b"\0" * (2 << 20))
    with pytest.raises(FormatError, match=r"model\.safetensors: "):
        fingerprint(tmp_path)


def test_a_second_set_of_the_weights_in_mistrals_own_form_changes_nothing(tmp_path: Path) -> None:
    before = fingerprint(write(tmp_path / "a", weights()))
    assert fingerprint(write(tmp_path / "a", weights(2.0), "consolidated.safetensors")) == before
    alone = fingerprint(write(tmp_path / "b", weights(2.0), "consolidated.safetensors"))
    assert alone != before
