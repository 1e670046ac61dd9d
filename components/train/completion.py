"""TRL's SFTTrainer with logits on the answers' positions only, for every objective.

TRL computes each prompt by itself, though many begin alike (the two answers of a pair always do),
and off CUDA it scores every position of a prompt to throw most of that away; with a vocabulary of
49,152 that is a third of the work of a small model. Here ``packing`` puts the rows into sequences,
and the model is asked for the logits that predict answers. What else a loss needs (the base's
word, a teacher's) is said before, without gradients: ``asides``.
Imported late, since it loads torch.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from accelerate.data_loader import prepare_data_loader
from accelerate.utils.memory import should_reduce_batch_size
from torch.utils.data import DataLoader, Dataset  # noqa: TID253 - as above
from trl.trainer.sft_trainer import SFTTrainer  # noqa: TID253 - as above

from components.train import (
    asides,
    asking,
    batches,
    cpu_engine,
    learning,
    packing,
    peers,
    sharding,
)
from components.train.batches import Batch, Shape, Share
from components.train.cpu_engine import Lanes
from components.train.learning import Said
from components.train.lessons import Lesson
from components.train.objectives.settings import Objective, Sft
from components.train.order import Epochs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


class CompletionTrainer(SFTTrainer):
    """Learns from answers alone; ``tokens_seen`` counts prompts and answers since the start.

    ``row_ids`` are those of the batch it works on. A batch that does not fit into the memory is
    computed in twice as many sequences of half the length from then on, to the same end. Where
    several processes train together, each computes its part of a batch by itself, in as many
    sequences as it takes, before gradients are pooled; where the base is split over them, all in
    as many as the one that takes most.
    """

    tokens_seen = 0
    shape = batches.PLAIN
    lanes: Lanes | None = None
    call_token = 0
    objective: Objective = Sft()
    teacher: "PreTrainedModel | None" = None
    start: asides.Start | None = None
    row_ids: Sequence[str] = ()
    epochs: Epochs | None = None

    after_backward: Callable[[], None] | None = None
    """Called when all gradients of a step are there, before they are clipped."""

    @contextmanager
    def in_lanes(self) -> Generator[None]:
        """Compute in lanes, where there are several, until the end of the block."""
        assert isinstance(self.model, torch.nn.Module)
        try:
            engine = cpu_engine.for_device(self.args.device.type)
            lanes = engine.opened(engine.lanes(self.model)) if engine else nullcontext()
            with lanes as self.lanes:
                yield
        finally:
            self.lanes = None

    def pools_gradients_itself(self) -> None:
        """Keep Accelerate from wrapping the model for several processes, which ``peers`` pools for.

        Its wrapper counts on one backward pass a step, and refuses a base that is split.
        """
        plain = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = plain

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Give every process each whole batch, of which ``collate`` takes its part.

        Accelerate would cut batches without regard to what lessons have in common, and repeat some
        where the last batch is not enough for all processes.
        """
        loader = DataLoader(
            cast("Dataset[Any]", self.train_dataset),
            batch_size=self.args.per_device_train_batch_size,
            sampler=self.epochs,
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add the gradients of a batch's loss, and give the loss; ``inputs`` are the lessons."""
        lessons: list[dict[str, Any]] = inputs["lessons"]
        self.row_ids = [lesson["row_id"] for lesson in lessons]
        self.tokens_seen += batches.tokens(lessons)
        model.train()
        before = {weight: weight.grad for weight in model.parameters() if weight.requires_grad}
        while True:
            for weight in before:
                weight.grad = None
            batch = batches.collate(lessons, self.shape)
            if sharding.is_sharded(model):
                count = peers.most(len(batch["shares"]), self.args.device)
                batch = batches.kept_company(batch, lessons, count)
            try:
                loss = self._learn(getattr(model, "module", model), batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if sharding.is_sharded(model):
                    raise MemoryError(
                        "training: the memory of one of the processes that share the base does not "
                        "hold its part of a step, and the others can't wait for it: a higher "
                        "gradient_accumulation_steps or gradient_checkpointing would help"
                    ) from error
                self.shape = smaller(self.shape, lessons, error)
                continue
            loss = peers.pool(before, loss, self._whole(batch["shares"]))
            for weight, grad in before.items():
                if grad is not None:
                    weight.grad = grad if weight.grad is None else weight.grad.add_(grad)
            if self.after_backward is not None and self.accelerator.sync_gradients:
                self.after_backward()
            return loss

    def _learn(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the gradients of a batch, share by share, or in lanes where there are some."""
        if not batch["shares"]:  # there are more processes than lessons
            return torch.zeros((), device=self.args.device)
        if self.lanes is not None:
            loss_of, shares = self._loss_of(model, batch)
            learned = [weight for weight in model.parameters() if weight.requires_grad]
            return self.lanes.backward(loss_of, shares, learned)
        loss_of, shares = self._loss_of(model, _on(self.args.device, batch))
        total = torch.zeros((), device=self.args.device)
        for share in shares:
            with self.compute_loss_context_manager():
                loss = loss_of(share)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def batch_loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Give the batch's mean loss, each lesson counting as much as its weight.

        The mean is over all alike: a lesson of half the weight moves the model half as far, in
        whatever company; with weights of 1 it is the plain mean, over tokens or over pairs.
        """
        loss_of, shares = self._loss_of(model, batch)
        return torch.stack([loss_of(share) for share in shares]).sum()

    def measure(self, lessons: Sequence[Lesson], batch_size: int) -> dict[str, float]:
        """Give figures of the lessons, learning nothing from them; ``learning`` says which."""
        assert isinstance(self.model, torch.nn.Module)
        model = self.model.eval()
        device = next(model.parameters()).device
        found = learning.Measured(self.objective)
        for start in range(0, len(lessons), batch_size):
            rows = [asdict(one) for one in lessons[start : start + batch_size]]
            batch = batches.collate(rows, Shape(strangers=self.shape.strangers))
            with torch.no_grad():
                told = self._told(model, _on(device, batch))
                for share in told:
                    found.add(self._said(model, share), share)
        return found.figures()

    def _loss_of(
        self, model: torch.nn.Module, batch: Batch
    ) -> tuple[Callable[[Share], torch.Tensor], list[Share]]:
        """Give the batch's shares, and what computes the part of the loss that is a share's."""
        shares = self._told(model, batch)
        whole = self._whole(shares).clamp_min(torch.finfo(torch.float32).tiny)

        def loss_of(share: Share) -> torch.Tensor:
            loss = learning.loss(self.objective, self._said(model, share), share)
            return share["counts"] * loss / whole

        return loss_of, shares

    def _whole(self, shares: Sequence[Share]) -> torch.Tensor:
        """Sum up what the losses are divided by; nothing where nothing is learned."""
        wholes = (one["counts"] * learning.whole(self.objective, one) for one in shares)
        return sum(wholes, torch.zeros(()))

    def _told(self, model: torch.nn.Module, batch: Batch) -> list[Share]:
        """Add to the batch's shares what the base or a teacher says of their answers."""
        return asides.add(self.objective, batch, model, self.teacher, self.start, self._each)

    def _each(self, work: Callable[[Share], torch.Tensor], shares: Sequence[Share]) -> list[Any]:
        if self.lanes is None:
            return [work(share) for share in shares]
        return [*self.lanes.threads.map(work, shares)]

    def _said(self, model: torch.nn.Module, share: Share) -> Said:
        logits = asking.logits(model, share)
        if len(share["margins"]):
            token = torch.tensor([self.call_token], device=logits.device)
            logits = logits.index_add(1, token, share["margins"][:, None])
        return Said(logits, share)


def smaller(shape: Shape, lessons: Sequence[dict[str, Any]], error: RuntimeError) -> Shape:
    """Halve how much of a batch is computed at a time, after ``error`` said that it does not fit.

    Raises:
        MemoryError: The longest lesson does not fit by itself.
    """
    rows = [[row["input_ids"] for row in lesson["rows"]] for lesson in lessons]
    largest = max(packing.size(lesson) for lesson in rows)
    tried = min(shape.longest, packing.size([row for lesson in rows for row in lesson]))
    if tried <= largest:
        raise MemoryError(
            f"training: the memory does not hold a sequence of {largest} tokens; a smaller "
            "max_length or fewer target_modules would help"
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    found = max(tried // 2, largest)
    logger.warning("out of memory: from now on %d tokens are computed at a time", found)
    return replace(shape, longest=found)


def _on(device: torch.device, batch: Batch) -> Batch:
    """Put the batch's shares on a device."""
    return {
        name: [{key: tensor.to(device) for key, tensor in share.items()} for share in shares]
        for name, shares in batch.items()
    }
