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
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.utils.data import DataLoader, Dataset  # noqa: TID253 - as above
from trl.trainer.sft_trainer import SFTTrainer  # noqa: TID253 - as above

from components.train import device_engine, objective_losses, packing, process_group
from components.train.device_engine import GradientThreads
from components.train.micro_batches import (
    ONE_BY_ONE,
    PLAIN_LAYOUT,
    Batch,
    BatchLayout,
    MicroBatch,
    collate,
    count_tokens,
    pad_with_empty,
)
from components.train.objective_losses import ModelOutputs
from components.train.packing import Epochs, can_pack_rows
from components.train.recipe import Objective, Sft
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answer_logits(model: torch.nn.Module, micro_batch: MicroBatch) -> torch.Tensor:
    """Return the logits that predict each learned token, ``[learned tokens, vocab]``, in fp32."""
    longest = max(length for length, _ in micro_batch["row_sizes"].tolist())
    compute = _packed_logits if can_pack_rows(model, longest) else _row_by_row_logits
    return compute(model, micro_batch).float()


def _packed_logits(model: torch.nn.Module, micro_batch: MicroBatch) -> torch.Tensor:
    place = micro_batch["input_ids"].device.type
    engine = device_engine.for_device(place)
    dtype = getattr(model, "dtype", torch.float32)
    if place == "cuda" and torch.is_autocast_enabled(place):
        dtype = torch.get_autocast_dtype(place)  # else each layer would cast it
    mask = torch.zeros_like(micro_batch["visible"], dtype=dtype)
    mask.masked_fill_(~micro_batch["visible"], torch.finfo(dtype).min)
    predicting = {"logits_to_keep": micro_batch["predicting"]}
    outputs = model(
        input_ids=micro_batch["input_ids"][None],
        position_ids=micro_batch["position_ids"][None],
        attention_mask=mask[None, None],
        **(engine.inputs(model, micro_batch) if engine else predicting),
        use_cache=False,
    )
    return cast("torch.Tensor", outputs.logits[0])


def _row_by_row_logits(model: torch.nn.Module, micro_batch: MicroBatch) -> torch.Tensor:
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    can_select = "logits_to_keep" in inspect.signature(bare.forward).parameters
    sizes = zip(*micro_batch["row_sizes"].tolist(), strict=True)
    packed = (micro_batch["row_indices"], micro_batch["position_ids"][micro_batch["predicting"]])
    rows = (tensor.split([*size]) for tensor, size in zip(packed, sizes, strict=True))
    logits: list[torch.Tensor] = []
    for indices, predicting in zip(*rows, strict=True):
        selection = {"logits_to_keep": predicting} if can_select else {}
        ids = micro_batch["input_ids"][indices][None]
        outputs = model(input_ids=ids, use_cache=False, **selection)
        logits.append(outputs.logits[0] if can_select else outputs.logits[0, predicting])
    return torch.cat(logits)


StartWeights: TypeAlias = Sequence[tuple[torch.nn.Parameter, torch.Tensor]]
"""The trained weights, each with its value at the start of the training."""


def copy_start_weights(model: torch.nn.Module) -> StartWeights:
    """Return the trainable weights with copies of their current values."""
    trained = (weight for weight in model.parameters() if weight.requires_grad)
    return [(weight, weight.detach().clone()) for weight in trained]


@contextmanager
def _as_reference(model: torch.nn.Module, start_weights: StartWeights | None) -> Generator[None]:
    """Restore the weights from the start of the training within the block."""
    adapted: Any = getattr(model, "module", model)  # a wrapper for several GPUs may hold PEFT's
    if start_weights is None:
        with adapted.disable_adapter():
            yield
        return
    current = [weight.data for weight, _ in start_weights]
    for weight, before in start_weights:
        weight.data = before
    try:
        yield
    finally:
        for (weight, _), trained in zip(start_weights, current, strict=True):
            weight.data = trained


@contextmanager
def _without_dropout(model: torch.nn.Module) -> Generator[None]:
    """Disable dropout within the block: differences of likelihoods would be those of two draws."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _row_logprobs(model: torch.nn.Module, micro_batch: MicroBatch) -> torch.Tensor:
    return ModelOutputs(answer_logits(model, micro_batch), micro_batch).rows


logger = logging.getLogger(__name__)


class CompletionTrainer(SFTTrainer):
    """Trains on answers only.

    After an out-of-memory error, batches are split into sequences of half the length from then on,
    with the same gradients. Several processes each compute their part of a batch before gradients
    are pooled; where the base is sharded, all run as many sequences as the one that needs most.

    ``tokens_seen`` counts prompts and answers since the start; ``row_ids`` names the current
    batch's rows.
    """

    tokens_seen = 0
    layout = PLAIN_LAYOUT
    threads: GradientThreads | None = None
    call_token = 0
    objective: Objective = Sft()
    teacher: "PreTrainedModel | None" = None
    # The reference of DPO and KTO, where it is not the base:
    start_weights: StartWeights | None = None
    row_ids: Sequence[str] = ()
    epochs: Epochs | None = None

    after_backward: Callable[[float], None] | None = None
    """Called when a step's gradients are complete, before they are clipped, with the factor by
    which the loss is scaled (1 but for fp16)."""

    @contextmanager
    def in_threads(self) -> Generator[None]:
        """Compute micro-batches in data-parallel threads within the block, where that applies."""
        assert isinstance(self.model, torch.nn.Module)
        try:
            engine = device_engine.for_device(self.args.device.type)
            opened = (
                engine.open_threads(engine.thread_count(self.model)) if engine else nullcontext()
            )
            with opened as self.threads:
                yield
        finally:
            self.threads = None

    def disable_accelerate_wrapper(self) -> None:
        """Keep Accelerate from wrapping the model in DDP; ``process_group`` pools the gradients.

        DDP expects one backward pass per step, and refuses a sharded base.
        """
        plain = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = plain

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Write none: TRL's goes with each checkpoint, and the adapter's card is written later."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of whole batches for every process; ``collate`` selects its part.

        Accelerate would split batches regardless of common prefixes, and repeat examples where the
        last batch has fewer than there are processes.
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
        """Add the gradients of a batch's loss and return the loss; ``inputs`` has ``examples``.

        Raises:
            MemoryError: The longest example doesn't fit, or a sharded step doesn't.
        """
        examples: list[dict[str, Any]] = inputs["examples"]
        self.row_ids = [example["row_id"] for example in examples]
        self.tokens_seen += count_tokens(examples)
        model.train()
        before = {weight: weight.grad for weight in model.parameters() if weight.requires_grad}
        while True:
            for weight in before:
                weight.grad = None
            batch = collate(examples, self.layout)
            if process_group.is_sharded(model):
                count = process_group.highest_number(len(batch["micro_batches"]), self.args.device)
                batch = pad_with_empty(batch, examples, count)
            try:
                loss = self._backward(getattr(model, "module", model), batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if process_group.is_sharded(model):
                    raise MemoryError(
                        "training: one of the processes that shard the base is out of memory, and "
                        "the others can't wait until it has retried: raise "
                        "gradient_accumulation_steps or set gradient_checkpointing"
                    ) from error
                self.layout = halved_layout(self.layout, examples, error)
                loss = None
            if loss is None:
                # Only now: the error's traceback held the activations.
                clear_device_cache(garbage_collection=True)
                continue
            loss = process_group.pool_gradients(
                before, loss, self._normalizer(batch["micro_batches"])
            )
            for weight, grad in before.items():
                if grad is not None:
                    weight.grad = grad if weight.grad is None else weight.grad.add_(grad)
            if self.after_backward is not None and self.accelerator.sync_gradients:
                scaler = self.accelerator.scaler
                self.after_backward(1.0 if scaler is None else scaler.get_scale())
            return loss

    def _backward(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not batch["micro_batches"]:  # there are more processes than examples
            return torch.zeros((), device=self.args.device)
        if self.threads is not None:
            loss_of, micro_batches = self._loss_of(model, batch)
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            return self.threads.backward(loss_of, micro_batches, trained)
        loss_of, micro_batches = self._loss_of(model, _to_device(self.args.device, batch))
        total = torch.zeros((), device=self.args.device)
        for micro_batch in micro_batches:
            with self.compute_loss_context_manager():
                loss = loss_of(micro_batch)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def batch_loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the batch's weighted loss, a scalar.

        The denominator ignores row weights: an example of half the weight moves the model half as
        far whatever else is in the batch. With weights of 1 it is the mean over tokens or pairs.
        """
        loss_of, micro_batches = self._loss_of(model, batch)
        return torch.stack([loss_of(micro_batch) for micro_batch in micro_batches]).sum()

    def measure(
        self,
        examples: Sequence[TrainingExample],
        batch_size: int,
        advance: Callable[[int], None] = lambda _: None,
    ) -> dict[str, float]:
        """Return validation metrics of the examples by name (``ValidationMetrics``).

        ``advance`` is called with the number of examples that are measured. Leaves the model in
        evaluation mode.
        """
        assert isinstance(self.model, torch.nn.Module)
        model = self.model.eval()
        device = next(model.parameters()).device
        metrics = objective_losses.ValidationMetrics(self.objective)
        own = self.layout
        layout = BatchLayout(
            kl_pairs=own.kl_pairs, max_length=own.max_length, max_tokens=own.max_tokens
        )
        for start in range(0, len(examples), batch_size):
            rows = [asdict(example) for example in examples[start : start + batch_size]]
            batch = collate(rows, layout)
            with torch.no_grad():
                for micro_batch in self._with_references(model, _to_device(device, batch)):
                    metrics.add(self._outputs(model, micro_batch), self._with_teacher(micro_batch))
            advance(start + len(rows))
        return metrics.figures()

    def _loss_of(
        self, model: torch.nn.Module, batch: Batch
    ) -> tuple[Callable[[MicroBatch], torch.Tensor], list[MicroBatch]]:
        """Return the function that computes a micro-batch's part of the loss, and its inputs."""
        micro_batches = self._with_references(model, batch)
        normalizer = self._normalizer(micro_batches).clamp_min(torch.finfo(torch.float32).tiny)

        def loss_of(micro_batch: MicroBatch) -> torch.Tensor:
            compared = self._with_teacher(micro_batch)  # before the student's activations
            outputs = self._outputs(model, micro_batch)
            loss = objective_losses.batch_loss(self.objective, outputs, compared)
            return micro_batch["loss_scale"] * loss / normalizer

        return loss_of, micro_batches

    def _normalizer(self, micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
        """Return the loss's denominator; 0 without anything to learn."""
        parts = (
            micro_batch["loss_scale"] * objective_losses.normalizer(self.objective, micro_batch)
            for micro_batch in micro_batches
        )
        return sum(parts, torch.zeros(()))

    def _with_references(self, model: torch.nn.Module, batch: Batch) -> list[MicroBatch]:
        """Return the micro-batches with the tensors that the objective compares with.

        DPO and KTO: ``reference`` ``[rows]``, log-likelihoods under the reference; KTO also ``kl``,
        a scalar.
        """
        micro_batches = batch["micro_batches"]
        added: dict[str, torch.Tensor] = {}
        if self.objective.kind == "kto":
            added["kl"] = self._kl_estimate(model, batch["kl_pairs"])
        match self.objective.kind:
            case "sft" | "orpo" | "distillation":
                return micro_batches
            case "dpo" | "kto":
                references = self._reference_logprobs(model, micro_batches)
        return [
            {**micro_batch, "reference": reference, **added}
            for micro_batch, reference in zip(micro_batches, references, strict=True)
        ]

    def _with_teacher(self, micro_batch: MicroBatch) -> MicroBatch:
        """Return the micro-batch with a distillation's ``teacher``, ``[learned tokens, vocab]``.

        One at a time: the logits of a whole step would take the memory that its split saves.
        """
        if self.objective.kind != "distillation":
            return micro_batch
        assert self.teacher is not None
        place = micro_batch["input_ids"].device.type
        with torch.no_grad(), torch.autocast(place, enabled=False):
            return {**micro_batch, "teacher": answer_logits(self.teacher, micro_batch)}

    def _kl_estimate(self, model: torch.nn.Module, kl_pairs: Sequence[MicroBatch]) -> torch.Tensor:
        if not kl_pairs:
            return torch.tensor(0.0)
        policy = torch.cat(self._map(_row_logprobs, model, kl_pairs))
        reference = torch.cat(self._reference_logprobs(model, kl_pairs))
        return objective_losses.estimate_kl(policy, reference)

    def _reference_logprobs(
        self, model: torch.nn.Module, micro_batches: Sequence[MicroBatch]
    ) -> list[torch.Tensor]:
        with _as_reference(model, self.start_weights):
            return self._map(_row_logprobs, model, micro_batches)

    def _map(
        self,
        compute: Callable[[torch.nn.Module, MicroBatch], torch.Tensor],
        model: torch.nn.Module,
        micro_batches: Sequence[MicroBatch],
    ) -> list[torch.Tensor]:
        """Compute without gradients or dropout, in parallel where possible."""
        work = torch.no_grad()(partial(compute, model))
        with _without_dropout(model):
            if self.threads is None:
                return [work(micro_batch) for micro_batch in micro_batches]
            return [*self.threads.pool.map(work, micro_batches)]

    def _outputs(self, model: torch.nn.Module, micro_batch: MicroBatch) -> ModelOutputs:
        logits = answer_logits(model, micro_batch)
        if len(micro_batch["margins"]):
            token = torch.tensor([self.call_token], device=logits.device)
            logits = logits.index_add(1, token, micro_batch["margins"][:, None])
        return ModelOutputs(logits, micro_batch)


def halved_layout(
    layout: BatchLayout, examples: Sequence[dict[str, Any]], error: RuntimeError
) -> BatchLayout:
    """Return the layout with half the ``max_tokens``, after an out-of-memory ``error``.

    A sequence of several examples may exceed ``max_tokens`` a little, so at last each is alone.

    Raises:
        MemoryError: The longest example alone doesn't fit.
    """
    rows = [[row["input_ids"] for row in example["rows"]] for example in examples]
    largest = max(packing.packed_size(example) for example in rows)
    packed = packing.packed_size([row for example in rows for row in example])
    tried = min(layout.max_tokens, packed)
    if tried == ONE_BY_ONE or packed == largest:
        raise MemoryError(
            f"training: out of memory with one sequence of {largest} tokens; lower max_length or "
            "name fewer target_modules"
        ) from error
    halved = max(tried // 2, largest) if tried > largest else ONE_BY_ONE
    portion = "one example is" if halved == ONE_BY_ONE else f"{halved} tokens are"
    logger.warning("out of memory: from now on %s computed at a time", portion)
    return replace(layout, max_tokens=halved)


def _to_device(device: torch.device, batch: Batch) -> Batch:
    return {
        name: [
            {key: tensor.to(device) for key, tensor in micro_batch.items()}
            for micro_batch in micro_batches
        ]
        for name, micro_batches in batch.items()
    }
