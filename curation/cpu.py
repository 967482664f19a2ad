"""What this machine's CPU multiplies in hardware."""

import torch


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 (AVX512-BF16 or AMX); where not, oneDNN emulates it, slowly."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_int8() -> bool:
    """Whether the CPU multiplies int8 (VNNI); where not, oneDNN adds two products in saturating int16."""
    return bool(torch.cpu._is_vnni_supported())
