"""How a job trains: the `[train]` section."""

from __future__ import annotations

from dataclasses import dataclass

from fourfold.runtime.dense import OptimizerName
from fourfold.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The `[train]` section."""

    # These change the results.
    steps: int | None = None
    """Steps to train; None: until the data end."""
    batch_size: int = 2048
    """Samples of one step over all dense ranks together."""
    optimizer: OptimizerName = "adam"
    """Optimizer of the dense parameters, from torch.optim with its own defaults."""
    lr: float = 0.001
    """Learning rate of the dense parameters."""
    warmup_steps: int = 0
    """Steps over which both learning rates rise linearly from zero."""
    decay: float = 0.0
    """Last share of `steps` over which both learning rates fall linearly to zero."""
    autocast: bool = False
    """Run the dense model under bf16 autocast."""
    tf32: bool = False
    """Let a GPU round the inputs of fp32 products to TF32 (10 bits), which is several times faster;
    off, as it is in PyTorch. No use on a CPU, nor for what `autocast` covers."""
    cuda_graphs: bool = False
    """Run the parts of the dense model that allow it (`fourfold.runtime.graphs`) from CUDA graphs,
    on GPUs: one launch in place of many, for small batches. Their memory stays taken. Sums are
    those of the other way up to rounding. Not measured yet."""
    eval_every: int = 0
    """Evaluate on the held-out data every so many steps; 0: only at the end."""
    eval_batches: int | None = None
    """Batches of one evaluation; None: all held-out data."""

    # These change the speed only.
    lookahead: int = 2
    """Batches that are read, routed and planned while one trains; 0: everything in line."""
    threads: int = 1
    """Threads of each rank, for torch and for the native kernels."""
    log_every: int = 50
    """Steps between two lines of progress."""
    sync_stages: bool = False
    """On a GPU, wait for it at both ends of every stage of a step, so that the seconds by stage are
    those of its work. Otherwise they are the host's: to hand out the work, and to wait where a
    result is needed. Slower, for looking only."""

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("warmup_steps", 0),
            ("eval_every", 0),
            ("lookahead", 0),
            ("threads", 1),
            ("log_every", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("steps", "eval_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"decay must be in [0, 1], got {self.decay}")
        if self.decay and self.steps is None:
            raise ConfigError("decay needs steps: it is a share of them")
        if self.lr <= 0:
            raise ConfigError(f"lr must be positive, got {self.lr}")

    def rate(self, step: int) -> float:
        """Factor of both learning rates at `step`, counted from 1."""
        factor = min(1.0, step / max(1, self.warmup_steps))
        if self.decay and self.steps is not None:
            factor = min(factor, (self.steps - step + 1) / (self.decay * self.steps))
        return factor
