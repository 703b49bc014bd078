"""What test_op_triton runs in a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trimtab.plugin.model import op_triton, triton_add, triton_score


def answer(given: str, answered: str) -> None:
    """The kernels' delta, under the interpreter, and `decided`, `lost` and `counts` after it, for the cases
    of a file.

    Each case is answered twice: as few tokens are scored, and as many are.
    """
    answers = []
    for case, opens in torch.load(given):
        for op_triton._FEW in (len(case[0]), 0):
            unchanged, after = case[:-3], [tensor.clone() for tensor in case[-3:]]
            answers.append((op_triton.launch(*unchanged, *after, opens=opens), *after))
    torch.save(answers, answered)


_TYPES = {
    **dict.fromkeys(("entries", "slots", "decided"), "*i32"),
    **dict.fromkeys(("lost", "summed"), "*u8"),
    "counts": "*i64",
    **dict.fromkeys(("limits", "bias"), "*fp64"),
    **dict.fromkeys(("rows", "scores", "sizes"), "*fp32"),
    **dict.fromkeys(("tokens", "slice_size", "total", "hidden_stride", "residual_stride"), "i32"),
    "opens": "u1",
}


def build(stream: str, size: int, *, has_residual: bool) -> None:
    """Compiles the kernels down to machine code, which needs no GPU."""
    types = _TYPES | dict.fromkeys(("hidden", "residual", "delta"), stream)
    forms = {"HAS_RESIDUAL": has_residual, "EARLY": True, "D": size, "MOST": 64}
    few = {"SHARES": 16, "BLOCK_K": 4, "BLOCK_D": 1024}
    many = {"SPLITS": 4, "BLOCK_T": 16, "BLOCK_K": op_triton._BLOCK_K, "BLOCK_D": op_triton._BLOCK_D}
    add = {"SPLITS": 4, "SIZES": 4, "SHARE": 0, "BLOCK_D": 1024, "EXACT_D": 512, "LANES": op_triton._LANES}
    for kernel, own in ((triton_score.score_few, few), (triton_score.score_many, many), (triton_add.add, add)):
        constants = forms | own
        signature = types | dict.fromkeys(constants, "constexpr")
        ordered = {name: signature[name] for name in kernel.arg_names}
        built = triton.compile(ASTSource(kernel, ordered, constants), target=GPUTarget("cuda", 90, 32))
        assert built.asm["cubin"]


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "answer":
        answer(*arguments)
    else:
        for stream in ("*fp32", "*bf16", "*fp16"):
            build(stream, size=896, has_residual=True)
        build("*bf16", size=896, has_residual=False)
