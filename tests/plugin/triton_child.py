"""What test_op_triton runs in a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trimtab.plugin.model import op_triton


def answer(given: str, answered: str) -> None:
    """The kernel's delta, under the interpreter, and `decided` and `lost` after it, for the cases of a file."""
    torch.save([(op_triton.launch(*case, opens=opens), *case[-2:]) for case, opens in torch.load(given)], answered)


def build(stream: str, size: int, *, has_residual: bool) -> None:
    """Compiles the kernel down to machine code, which needs no GPU."""
    types = dict.fromkeys(("entries", "slots", "decided"), "*i32")
    types |= {"lost": "*u8", "summed": "*u8", "opens": "u1"}
    types |= dict.fromkeys(("hidden", "residual", "delta"), stream)
    types |= dict.fromkeys(("limits", "bias"), "*fp64")
    types["rows"] = "*fp32"
    types |= {"hidden_stride": "i32", "residual_stride": "i32"}
    constants = {"HAS_RESIDUAL": has_residual, "D": size, "BLOCK_K": op_triton._BLOCK_K, "BLOCK_D": op_triton._BLOCK_D}
    signature = types | dict.fromkeys(constants, "constexpr")
    ordered = {name: signature[name] for name in op_triton._steer.arg_names}
    built = triton.compile(ASTSource(op_triton._steer, ordered, constants), target=GPUTarget("cuda", 90, 32))
    assert built.asm["cubin"]


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "answer":
        answer(*arguments)
    else:
        for stream in ("*fp32", "*bf16", "*fp16"):
            build(stream, size=896, has_residual=True)
        build("*bf16", size=896, has_residual=False)
