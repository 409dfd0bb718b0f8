"""The fast fp32 matrix product of this machine.

A GPU computes fp32 products in fp32, as PyTorch does unless it is told otherwise; a job may allow
TF32. The rest is about CPUs.

PyTorch on a CPU sends fp32 products to MKL, which on some CPUs (AMD with AVX-512, for one) runs at
less than half of what oneDNN, also inside PyTorch, reaches. oneDNN is only asked when the precision
of its fp32 products is *allowed* to drop to bf16. On a CPU without matrix tiles (AMX) there is
nothing faster to drop to, so oneDNN computes in full fp32 all the same; on a CPU with tiles it
would round. So the permission is given only where a probe shows that the results keep all of fp32's
bits.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
from typing import Literal

import torch

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_PROBE_SHAPES = ((1, 2048, 13, 512), (1, 2048, 512, 256), (1, 256, 415, 64), (64, 27, 64, 27))
"""(batch, M, K, N): thin, square, odd and batched products, as a recommendation model has them."""


def choose_products(device: Literal["cpu", "cuda"], *, tf32: bool = False) -> str:
    """Set how this process computes fp32 products on its device, and name it. Process-wide."""
    if device == "cpu":
        return "oneDNN" if use_onednn() else "PyTorch"
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # PyTorch 2.9 and newer, which dislikes the old name
        matmul.fp32_precision = "tf32" if tf32 else "ieee"
    else:
        matmul.allow_tf32 = tf32
    return "cuBLAS, TF32" if tf32 else "cuBLAS, fp32"


def use_onednn() -> bool:
    """Route fp32 products through oneDNN if that keeps fp32 accuracy; say whether it does.

    Process-wide. It changes the order of sums, not their precision: every probe must agree with a
    float64 product within fp32's own error (bf16 inputs would miss that bound by a factor of 100).
    """
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None or not torch.backends.mkldnn.is_available():
        return False
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if all(itertools.starmap(_keeps_fp32, _PROBE_SHAPES)):
        return True
    matmul.fp32_precision = before
    logger.info("oneDNN rounds fp32 products to bf16 on this CPU: keeping PyTorch's own path")
    return False


def _keeps_fp32(batch: int, m: int, k: int, n: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(batch, m, k, generator=generator) + 0.5
    b = torch.rand(batch, k, n, generator=generator) + 0.5
    exact = a.double() @ b.double()
    got = torch.bmm(a, b) if batch > 1 else torch.mm(a[0], b[0])[None]
    relative_error = ((got.double() - exact).abs() / exact).max().item()
    return relative_error < k * 2.0**-24


def keep_freed_memory(threshold_bytes: int = 1 << 30) -> None:
    """Let the C allocator reuse freed blocks below `threshold_bytes` instead of unmapping them.

    A training step frees and takes the same large tensors again and again; each return to the
    system costs a page fault per 4 KiB on the next use. Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, threshold_bytes)
        mallopt(_M_MMAP_THRESHOLD, threshold_bytes)
