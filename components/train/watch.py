"""Watch a training from inside: report each step, stop at SIGTERM, refuse a loss that explodes.

Imported late, since it loads torch.
"""

import math
import resource
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from transformers import TrainerCallback  # noqa: TID253 - as above

from components.schema import Progress
from components.train import checkpoints, peers

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class Interrupted(SystemExit):
    """SIGTERM arrived: a checkpoint was saved, and the next run goes on from there."""


FIRST = 10
"""Steps whose highest loss says what a loss may be."""

EXPLODED = 5.0
"""How many times as high a loss may be."""

SURPRISED = 2.0
"""How many times as high as guessing's it may be in any case: what goes on from a trained adapter
starts low, knows most rows, and is the more surprised by a strange one."""


class Watch(TrainerCallback):
    """Reports each step, seals checkpoints, and ends the run with one once SIGTERM has arrived.

    ``guessing`` is the loss of a model that finds all tokens equally likely, in nats. ``is_due`` is
    asked after each step, given it and the last one, whether to end the run there.
    """

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.count_tokens: Callable[[], int] = lambda: 0
        self.row_ids: Callable[[], Sequence[str]] = tuple
        self.is_due: Callable[[int, int], bool] = lambda _step, _steps: False
        self.guessing = 0.0
        self.interrupted = False
        self.started = time.monotonic()
        self.first_step = 0
        self.seconds = 0.0

    @contextmanager
    def for_sigterm(self) -> Generator[None]:
        """Take SIGTERM as a request to save and stop, while training."""

        def interrupt(*_: object) -> None:
            self.interrupted = True

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Note where this run goes on, for its pace."""
        self.first_step = state.global_step

    def on_step_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Ask the trainer to save and stop, in all processes at the same step."""
        is_due = self.is_due(state.global_step, state.max_steps)
        self.interrupted = peers.any_of(self.interrupted, args.device)
        if peers.any_of(is_due, args.device) or self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Report a step's figures; the summary at the end of a run has no loss of a step."""
        if logs is None or "loss" not in logs:
            return
        self._refuse(logs["loss"], state)
        self.seconds = seconds = time.monotonic() - self.started
        pace = seconds / (state.global_step - self.first_step)
        figures = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens_per_second": self.count_tokens() / seconds,
            "peak_memory_gb": peak_memory_gb(),
            "seconds_left": (state.max_steps - state.global_step) * pace,
        }
        if peers.number() == 0:
            self.report(Progress("train", state.global_step, state.max_steps, "steps", figures))

    def on_save(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Seal the checkpoint that was just written, once every process has written its part."""
        assert args.output_dir is not None
        peers.meet()
        if peers.number() == 0:
            checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _refuse(self, loss: float, state: "TrainerState") -> None:
        """Stop at a loss that is no number, or that is far above those at the start.

        Those are the training's, which a checkpoint brings along, not this run's.
        """
        *before, _ = (entry["loss"] for entry in state.log_history if "loss" in entry)
        most = max(before[:FIRST], default=math.inf)
        if math.isfinite(loss) and loss <= max(EXPLODED * most, SURPRISED * self.guessing):
            return
        rows = ", ".join(self.row_ids())
        raise FloatingPointError(
            f"the loss of step {state.global_step} is {loss:.4g}, that of the first steps was at "
            f"most {most:.4g}: the training diverged, a lower learning_rate would help, if not for "
            f"what is in these rows: {rows}"
        )


def peak_memory_gb() -> float:
    """Give the most memory taken so far, in 10^9 bytes: of the CUDA device, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
