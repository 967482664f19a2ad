"""What this machine's CPU multiplies in hardware, and what torch makes of it."""

from typing import Literal

import torch


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 (AVX512-BF16 or AMX); where not, oneDNN emulates it, slowly."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_int8() -> bool:
    """Whether the CPU multiplies int8 (VNNI); where not, oneDNN adds two products in saturating int16."""
    return bool(torch.cpu._is_vnni_supported())


def keeps_fp32(operation: Literal["matmul", "conv"]) -> bool:
    """Whether torch multiplies fp32 in fp32 on a CPU, or `set_float32_matmul_precision` has lowered it."""
    # Of the process: others set them, and rely on them.
    match operation:
        case "matmul":
            settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # mypy sees what it replaces
        case "conv":
            settings = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    return settings.fp32_precision in ("none", "ieee")
