"""Which mixed precision a machine is fast in."""

import torch


def fast_dtype(device: torch.device | str) -> torch.dtype | None:
    """bfloat16 where the hardware multiplies it natively, else None (stay in float32)."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if kind == "cpu":
        # Without native instructions bfloat16 is emulated and several times slower than float32.
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
    return None
