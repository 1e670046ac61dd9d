"""TRL's SFTTrainer for packed answers and every objective, with reference log-probabilities."""

import inspect
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late
from accelerate.data_loader import prepare_data_loader
from accelerate.utils.memory import should_reduce_batch_size
from torch.utils.data import DataLoader, Dataset  # noqa: TID253 - as above
from trl.trainer.sft_trainer import SFTTrainer  # noqa: TID253 - as above

from components.train import cpu_engine, micro_batches, objective_losses, packing, process_group
from components.train.cpu_engine import Lanes
from components.train.micro_batches import Batch, BatchLayout, MicroBatch
from components.train.objective_losses import ModelOutputs
from components.train.packing import Epochs, can_pack_rows
from components.train.recipe import Objective, Sft
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answer_logits(model: torch.nn.Module, share: MicroBatch) -> torch.Tensor:
    """Give what a model says before each learned token, ``[learned tokens, words]``, in fp32."""
    longest = max(length for length, _ in share["sizes"].tolist())
    said = _packed_logits if can_pack_rows(model, longest) else _padded_logits
    return said(model, share).float()


def _packed_logits(model: torch.nn.Module, share: MicroBatch) -> torch.Tensor:
    dtype = getattr(model, "dtype", torch.float32)
    unseen = torch.zeros_like(share["seen"], dtype=dtype)
    unseen.masked_fill_(~share["seen"], torch.finfo(dtype).min)
    engine = cpu_engine.for_device(share["input_ids"].device.type)
    predicting = {"logits_to_keep": share["predicting"]}
    found = model(
        input_ids=share["input_ids"][None],
        position_ids=share["position_ids"][None],
        attention_mask=unseen[None, None],
        **(engine.inputs(model, share) if engine else predicting),
        use_cache=False,
    )
    return cast("torch.Tensor", found.logits[0])


def _padded_logits(model: torch.nn.Module, share: MicroBatch) -> torch.Tensor:
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    keeps = "logits_to_keep" in inspect.signature(bare.forward).parameters
    sizes = zip(*share["sizes"].tolist(), strict=True)
    own = (share["places"], share["position_ids"][share["predicting"]])
    rows = (one.split([*size]) for one, size in zip(own, sizes, strict=True))
    found: list[torch.Tensor] = []
    for places, asked in zip(*rows, strict=True):
        wanted = {"logits_to_keep": asked} if keeps else {}
        said = model(input_ids=share["input_ids"][places][None], use_cache=False, **wanted)
        found.append(said.logits[0] if keeps else said.logits[0, asked])
    return torch.cat(found)


ForEachShare: TypeAlias = Callable[
    [Callable[[MicroBatch], torch.Tensor], Sequence[MicroBatch]], list[Any]
]
"""Does something for each share, and may do so for several at a time."""

StartWeights: TypeAlias = Sequence[tuple[torch.nn.Parameter, torch.Tensor]]
"""The weights that are trained, each with what it was when the training started."""


def copy_start_weights(model: torch.nn.Module) -> StartWeights:
    """Remember the weights that will be trained as they are now."""
    learned = (weight for weight in model.parameters() if weight.requires_grad)
    return [(weight, weight.detach().clone()) for weight in learned]


def add_reference_logprobs(
    objective: Objective,
    batch: Batch,
    model: torch.nn.Module,
    teacher: torch.nn.Module | None,
    start: StartWeights | None,
    each: ForEachShare,
) -> list[MicroBatch]:
    """Return the batch's shares with ``base`` ``[rows]``, ``drift`` or ``teacher`` among them.

    Args:
        objective: Says which of them are wanted.
        batch: The shares.
        model: The model that learns.
        teacher: That of a distillation.
        start: The weights of a warm start, which DPO and KTO compare with; without them it is the
            base alone.
        each: Does something for each share.
    """
    shares: list[MicroBatch] = batch["shares"]
    match objective.kind:
        case "sft" | "orpo":
            return shares
        case "distillation":
            assert teacher is not None
            told = each(lambda share: _answer_logits(teacher, share), shares)
            return [{**share, "teacher": one} for share, one in zip(shares, told, strict=True)]
        case "dpo":
            return _with_base(shares, model, start, each)
        case "kto":
            drift = _kl_estimate(batch["strangers"], model, start, each)
            told = _with_base(shares, model, start, each)
            return [{**share, "drift": drift} for share in told]


def _with_base(
    shares: Sequence[MicroBatch],
    model: torch.nn.Module,
    start: StartWeights | None,
    each: ForEachShare,
) -> list[MicroBatch]:
    with _as_reference(model, start):
        told = each(lambda share: _row_logprobs(model, share), shares)
    return [{**share, "base": one} for share, one in zip(shares, told, strict=True)]


def _kl_estimate(
    strangers: Sequence[MicroBatch],
    model: torch.nn.Module,
    start: StartWeights | None,
    each: ForEachShare,
) -> torch.Tensor:
    if not strangers:
        return torch.tensor(0.0)
    said = torch.cat(each(lambda share: _row_logprobs(model, share), strangers))
    told = [share["base"] for share in _with_base(strangers, model, start, each)]
    return objective_losses.estimate_kl(said, torch.cat(told))


@contextmanager
def _as_reference(model: torch.nn.Module, start: StartWeights | None) -> Generator[None]:
    """Have the model answer as it did when the training started, until the end of the block.

    PEFT's own model may be inside of a wrapper for several GPUs.
    """
    adapted: Any = getattr(model, "module", model)
    if start is None:
        with adapted.disable_adapter():
            yield
        return
    now = [weight.data for weight, _ in start]
    for weight, before in start:
        weight.data = before
    try:
        yield
    finally:
        for (weight, _), learned in zip(start, now, strict=True):
            weight.data = learned


@torch.no_grad()
def _row_logprobs(model: torch.nn.Module, share: MicroBatch) -> torch.Tensor:
    return ModelOutputs(answer_logits(model, share), share).rows


@torch.no_grad()
def _answer_logits(model: torch.nn.Module, share: MicroBatch) -> torch.Tensor:
    return answer_logits(model, share)


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
    shape = micro_batches.PLAIN_LAYOUT
    lanes: Lanes | None = None
    call_token = 0
    objective: Objective = Sft()
    teacher: "PreTrainedModel | None" = None
    start: StartWeights | None = None
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
        self.tokens_seen += micro_batches.count_tokens(lessons)
        model.train()
        before = {weight: weight.grad for weight in model.parameters() if weight.requires_grad}
        while True:
            for weight in before:
                weight.grad = None
            batch = micro_batches.collate(lessons, self.shape)
            if process_group.is_sharded(model):
                count = process_group.highest_number(len(batch["shares"]), self.args.device)
                batch = micro_batches.pad_with_empty(batch, lessons, count)
            try:
                loss = self._learn(getattr(model, "module", model), batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if process_group.is_sharded(model):
                    raise MemoryError(
                        "training: the memory of one of the processes that share the base does not "
                        "hold its part of a step, and the others can't wait for it: a higher "
                        "gradient_accumulation_steps or gradient_checkpointing would help"
                    ) from error
                self.shape = halved_layout(self.shape, lessons, error)
                continue
            loss = process_group.pool_gradients(before, loss, self._whole(batch["shares"]))
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
        loss_of, shares = self._loss_of(model, _to_device(self.args.device, batch))
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

    def measure(self, lessons: Sequence[TrainingExample], batch_size: int) -> dict[str, float]:
        """Give figures of the lessons, learning nothing from them; ``learning`` says which."""
        assert isinstance(self.model, torch.nn.Module)
        model = self.model.eval()
        device = next(model.parameters()).device
        found = objective_losses.ValidationMetrics(self.objective)
        for start in range(0, len(lessons), batch_size):
            rows = [asdict(one) for one in lessons[start : start + batch_size]]
            batch = micro_batches.collate(rows, BatchLayout(strangers=self.shape.strangers))
            with torch.no_grad():
                told = self._told(model, _to_device(device, batch))
                for share in told:
                    found.add(self._said(model, share), share)
        return found.figures()

    def _loss_of(
        self, model: torch.nn.Module, batch: Batch
    ) -> tuple[Callable[[MicroBatch], torch.Tensor], list[MicroBatch]]:
        """Give the batch's shares, and what computes the part of the loss that is a share's."""
        shares = self._told(model, batch)
        whole = self._whole(shares).clamp_min(torch.finfo(torch.float32).tiny)

        def loss_of(share: MicroBatch) -> torch.Tensor:
            loss = objective_losses.batch_loss(self.objective, self._said(model, share), share)
            return share["counts"] * loss / whole

        return loss_of, shares

    def _whole(self, shares: Sequence[MicroBatch]) -> torch.Tensor:
        """Sum up what the losses are divided by; nothing where nothing is learned."""
        wholes = (
            one["counts"] * objective_losses.normalizer(self.objective, one) for one in shares
        )
        return sum(wholes, torch.zeros(()))

    def _told(self, model: torch.nn.Module, batch: Batch) -> list[MicroBatch]:
        """Add to the batch's shares what the base or a teacher says of their answers."""
        return add_reference_logprobs(
            self.objective, batch, model, self.teacher, self.start, self._each
        )

    def _each(
        self, work: Callable[[MicroBatch], torch.Tensor], shares: Sequence[MicroBatch]
    ) -> list[Any]:
        if self.lanes is None:
            return [work(share) for share in shares]
        return [*self.lanes.threads.map(work, shares)]

    def _said(self, model: torch.nn.Module, share: MicroBatch) -> ModelOutputs:
        logits = answer_logits(model, share)
        if len(share["margins"]):
            token = torch.tensor([self.call_token], device=logits.device)
            logits = logits.index_add(1, token, share["margins"][:, None])
        return ModelOutputs(logits, share)


def halved_layout(
    shape: BatchLayout, lessons: Sequence[dict[str, Any]], error: RuntimeError
) -> BatchLayout:
    """Halve how much of a batch is computed at a time, after ``error`` said that it does not fit.

    Raises:
        MemoryError: The longest lesson does not fit by itself.
    """
    rows = [[row["input_ids"] for row in lesson["rows"]] for lesson in lessons]
    largest = max(packing.packed_size(lesson) for lesson in rows)
    tried = min(shape.longest, packing.packed_size([row for lesson in rows for row in lesson]))
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


def _to_device(device: torch.device, batch: Batch) -> Batch:
    """Put the batch's shares on a device."""
    return {
        name: [{key: tensor.to(device) for key, tensor in share.items()} for share in shares]
        for name, shares in batch.items()
    }
