"""What both stages of training share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

Precision = Literal["no", "bf16", "fp16", "tf32"]


@dataclass(frozen=True)
class Training:
    """What the training loops of both stages share."""

    SECTION: ClassVar[str]

    init: str | None = None
    """Begin from the weights of another run, the directory of which this is; what does not fit is named. With
    stage1.steps 0 stage one is taken over as it is."""
    steps: int = 20_000
    """Optimizer steps; the learning rate reaches zero at the last one."""
    batch_size: int = 128
    """Pictures of one optimizer step, over all processes and accumulation together."""
    accumulate: int = 1
    """Forward passes that a process splits its share of the batch into, to save memory."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 200
    """Steps in which the learning rate rises from zero; then it falls as a cosine. Where there are fewer
    steps it only rises, and not to its peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on weights of two and more axes."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    average: float = 0.0
    """Decay of the moving average of the weights, which evaluation, encoding and sampling then use; 0 for
    none."""
    log_every: int = 50
    """Steps between two points of a curve."""
    eval_every: int = 2000
    """Steps between two evaluations on the validation split; a multiple of save_every."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Latest checkpoints to keep, besides the best one."""

    def __post_init__(self):
        stage = self.SECTION
        for name in ("batch_size", "accumulate", "log_every", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must be at least 1")
        if self.steps < (0 if self._may_take_over() else 1):
            hint = ", or 0 with --stage1.init RUN to take over what that run has" if stage == "stage1" else ""
            raise ValueError(f"{stage}.steps is {self.steps}; it must be at least 1{hint}")
        if not self.learning_rate > 0:  # nan neither
            raise ValueError(f"{stage}.learning_rate is {self.learning_rate}; it must be above 0")
        for name in ("warmup", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.average < 1:
            raise ValueError(f"{stage}.average is {self.average}; a decay lies in [0, 1), for example 0.999")
        if self.eval_every % self.save_every:
            raise ValueError(
                f"{stage}.eval_every ({self.eval_every}) must be a multiple of {stage}.save_every "
                f"({self.save_every}), so that every evaluated step has a checkpoint: type "
                f"--{stage}.save_every {self.eval_every} too"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"{stage}.batch_size ({self.batch_size}) must be a multiple of {stage}.accumulate "
                f"({self.accumulate})"
            )

    def _may_take_over(self) -> bool:
        """Whether the weights that it begins from may be taken as they are."""
        return False
