"""Keeps what is not finite out of the weights, and carries the signal to stop: what processes must agree on
in a step.

On CUDA nothing of that is read in the step itself. Whether a step is sound stays a tensor, which the
optimizer, the codebook and the average heed; the host reads it, and the signals of all processes, one step
later, when the next step is queued already.
"""

from collections import deque
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vqprior.configs.errors import UserError

from . import checkpoint, interrupt
from .checkpoint_writer import Writer
from .optimizer import runs_ahead
from .processes import on_main, share_of_process


class _Verdict(NamedTuple):
    """What is to be read of a step."""

    step: int
    # [1 + signals]: whether it is unsound, then `report`'s signals; good once `ready` has happened
    values: Tensor
    ready: torch.Event | None


class Guard:
    """No process applies an unsound step, and ten of them in a row end the run.

    Args:
        accelerator: of the run.
        writer: of the checkpoints, to name the last one where the run ends.
        start: steps that were taken before.
    """

    PATIENCE = 10

    def __init__(self, accelerator: Accelerator, writer: Writer, start: int):
        self.accelerator, self.writer, self.step = accelerator, writer, start
        self.skipped, self.in_a_row = 0, 0
        self._unread: deque[_Verdict] = deque()

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps, once all is read."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load(self, state: dict[str, int]) -> None:
        """Go on counting from what a checkpoint kept."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def report(self, losses: Tensor) -> Tensor:
        """What this process has to say of a step, to be summed over all: whether a loss is not finite, 1 or
        0, and behind several processes for each signal that can be sent whether it was, [1 + signals]."""
        unsound = (~torch.isfinite(losses).all())[None].to(losses.dtype)
        if share_of_process().processes == 1:
            return unsound  # and the signal is not of the device
        signals = losses.new_zeros(len(interrupt.HANDLED))
        if sent := interrupt.requested():
            signals[interrupt.HANDLED.index(sent)].fill_(1)
        return torch.cat([unsound, signals])

    def clip(self, model: nn.Module, reports: Tensor, most: float) -> Tensor:
        """Scale the gradient down to a norm of `most` (0: not at all); the norm [] that it had.

        fp16's loss scaler looks at the gradient alone: that of an unsound loss is made unsound first.
        """
        if self.accelerator.scaler:
            gradient = next(p.grad for p in model.parameters() if p.grad is not None)
            gradient.add_(torch.where(reports[0] > 0, torch.nan, 0.0))
        return self.accelerator.clip_grad_norm_(model.parameters(), most or float("inf"))

    def judge(self, reports: Tensor, norm: Tensor) -> Tensor:
        """Whether a step is unsound, from the sum of the reports and the norm of the gradient, and the
        reports' signals.

        Returns:
            [1 + signals] on the device, the first of them 1 or 0.
        """
        unsound = (reports[:1] > 0) | ~torch.isfinite(norm)
        return torch.cat([unsound.to(reports.dtype), reports[1:]])

    def decide(self, verdict: Tensor) -> tuple[bool, Tensor | None]:
        """Whether to move anything at all; where the host runs ahead it does not know yet, and moves all by a
        tensor [] on the device, which is 1 to leave everything as it is."""
        if runs_ahead(verdict.device):
            return True, verdict[0]
        return not verdict[0].item(), None

    def note(self, verdict: Tensor) -> None:
        """Keep the verdict on the coming step, to be read when it is due."""
        self.step += 1
        values, ready = verdict, None
        if runs_ahead(verdict.device):
            values = verdict.to("cpu", non_blocking=True)  # into pinned memory
            ready = torch.Event(verdict.device)
            ready.record(torch.cuda.current_stream(verdict.device))
        self._unread.append(_Verdict(self.step, values, ready))

    def heed(self, *, everything: bool) -> int:
        """Read the verdicts that are due; the signal to stop, 0 for none: the same on all processes.

        Under fp16 an overflow is no fault while the loss scaler can still lower its scale: what that is when
        it is read, for which the host waits.

        Args:
            everything: also that of the step just queued, for which the host waits.

        Raises:
            UserError: the tenth unsound step in a row.
        """
        stop = interrupt.requested() if share_of_process().processes == 1 else 0
        while self._unread and (everything or self._is_due()):
            step, values, ready = self._unread.popleft()
            if ready:
                ready.synchronize()
            unsound, *signals = values.tolist()
            self._count(step, bool(unsound))
            # One process asks no other, and has no signals in its verdict
            sent = [number for number, times in zip(interrupt.HANDLED, signals, strict=False) if times]
            stop = max([stop, *sent])
        return stop

    def _is_due(self) -> bool:
        """Whether the eldest verdict can be read without waiting for the step just queued."""
        return self._unread[0].ready is None or len(self._unread) > 1

    def _count(self, step: int, unsound: bool) -> None:
        if not unsound:
            self.in_a_row = 0
            return
        scaler = self.accelerator.scaler
        if scaler is None or scaler.get_scale() < 1:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= self.PATIENCE:
            raise UserError(
                f"loss or gradient was not finite for {self.PATIENCE} steps in a row, up to step {step}; "
                f"none of them was applied, and {self._last_checkpoint()}. Start a new run with a lower "
                "learning rate, or with --precision no"
            )

    def _last_checkpoint(self) -> str:
        """What is left of the run, in words; the same on all processes."""
        self.writer.finish()
        last = on_main(checkpoint.newest, self.writer.folder)
        return f"the last good checkpoint is {last.path}" if last else "there is no checkpoint yet"
