"""The workload file: its record and its reader."""

import errno
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from components.costs import Prices
from components.curate.settings import Rules
from components.decide.approvers import Approving
from components.evaluate import guards, task_metrics
from components.evaluate.answer_judge import JUDGE_TASK
from components.evaluate.settings import EvaluationSettings, GuardTask
from components.gate.policy import Policy
from components.monitor.settings import Trigger
from components.schema import LEAST_DAYS, WORKLOAD_ID, Config, kind_of, parse_yaml
from components.serve.rollout_settings import RolloutSettings
from components.train import candidates
from components.train.candidates import SearchCandidate, SearchSettings
from components.train.recipe import Recipe, Worker
from components.validation_messages import every_mistake
from flows import source_entries
from flows.source_entries import Sources, Traffic, in_the_file

MAX_BYTES = 2**20  # a workload's file has some kilobytes; what is larger is another file

CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))  # of each field of a cron line

WorkloadId = Annotated[str, StringConstraints(pattern=WORKLOAD_ID)]


class Workload(Config):
    """One kind of request: its traffic, and how its adapter is trained, measured and judged."""

    workload: WorkloadId
    """Rows of the logs with this ``workload_id`` belong here; names the registered model, too."""

    base: Path
    """Folder of the pretrained model (safetensors, config, tokenizer), relative to this file."""

    base_served_as: str | None = Field(default=None, min_length=1)
    """The base's name where its adapters are served (vLLM's ``--served-model-name``), for their
    ``base_model_name_or_path``; the base's folder if it is left out."""

    sources: Sources = Field(default_factory=Sources)
    """Where its traffic lies; may be left out where all of it comes through the receiver."""

    note: str = ""
    """Shown to approvers: what the numbers can't show about this traffic."""

    collect_schedule: str = "7 * * * *"
    """Cron line (UTC) of the scheduled ``collect`` runs."""

    turn_schedule: str | None = "30 2 * * *"
    """Cron line (UTC) of the scheduled turns; ``null``: only the trigger or a person starts one."""

    trigger: Trigger | None = None
    """Which signs start a turn between the scheduled ones; if left out, no sign does."""

    retention_days: int | None = Field(default=None, ge=1)
    """Older rows that no snapshot names leave the warehouse for Parquet; all stay if unset."""

    prune_days: int | None = Field(default=None, ge=LEAST_DAYS)
    """Older outputs that nothing needs are deleted, as ``flywheel prune`` does; all stay if unset.
    It looks four times a day, but for when a turn is under way."""

    curate: Rules = Field(default_factory=Rules)
    train: Recipe = Field(default_factory=Recipe)
    worker: Worker = Field(default_factory=Worker)

    search: SearchSettings | None = None
    """Several recipes or bases to try in each turn instead of one, of which the best is trained to
    its end; requires ``validation_share`` under ``curate``."""

    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings, validate_default=True)
    gate: Policy = Field(default_factory=Policy, validate_default=True)

    approve: Approving = Field(default_factory=Approving)
    """Who may decide about a challenger, and what proves the name."""

    serve: RolloutSettings = Field(default_factory=RolloutSettings)
    """Whether an approved version becomes champion at once, or answers a share first."""

    cost: Prices = Field(default_factory=Prices)
    """What answers and training cost; the report lists the figures that lack a price."""

    @in_the_file("base")
    @classmethod
    def _is_model(cls, base: Path, info: ValidationInfo) -> Path:
        return _model(base, info)

    @in_the_file("curate")
    @classmethod
    def _reads_what_is_there(cls, rules: Rules, info: ValidationInfo) -> Rules:
        """Take replayed rows and the guard tasks' documents from the file's own folder."""
        balance, overlap = rules.balance, rules.overlap
        if balance.replay is not None:
            replayed = [_resolve(source, info) for source in balance.replay.sources]
            if missing := [str(path) for path in replayed if not path.exists()]:
                raise ValueError(f"balance.replay.sources: nothing is at {', '.join(missing)}")
            replay = balance.replay.model_copy(update={"sources": replayed})
            balance = balance.model_copy(update={"replay": replay})
        documents = [_resolve(path, info) for path in overlap.guards]
        if missing := [str(path) for path in documents if not path.is_file()]:
            raise ValueError(f"overlap.guards: no file is at {', '.join(missing)}")
        overlap = overlap.model_copy(update={"guards": tuple(map(str, documents))})
        return rules.model_copy(update={"balance": balance, "overlap": overlap})

    @in_the_file("train")
    @classmethod
    def _teacher_is_model(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        """Take the teacher of a distillation from the file's own folder."""
        objective = recipe.objective
        if objective.kind != "distillation":
            return recipe
        teacher = _resolve(objective.teacher_model_name_or_path, info)
        if not any((teacher / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ValueError(
                f"objective.teacher_model_name_or_path: {teacher} has neither config.json nor "
                "adapter_config.json, expected a model's or an adapter's folder"
            )
        taught = objective.model_copy(update={"teacher_model_name_or_path": teacher})
        return recipe.model_copy(update={"objective": taught})

    @in_the_file("evaluate")
    @classmethod
    def _has_tasks(cls, evaluate: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
        """Take the guard tasks' files from the file's own folder, and look each task over."""
        tasks = tuple(_resolve_guard(task, info) for task in evaluate.tasks)
        if mistakes := guards.guard_mistakes(tasks):
            raise ValueError(f"tasks: {'; '.join(mistakes)}")
        return evaluate.model_copy(update={"tasks": tasks})

    @field_validator("evaluate")
    @classmethod
    def _fits_recipe(cls, evaluate: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
        base, recipe, search = (info.data.get(name) for name in ("base", "train", "search"))
        if not isinstance(recipe, Recipe):
            return evaluate
        if "precision" not in evaluate.model_fields_set:
            evaluate = evaluate.model_copy(update={"precision": recipe.precision})
        if evaluate.engine == "vllm":
            from components.evaluate.engines.vllm_limits import (  # noqa: PLC0415 - few files name it
                vllm_objections,
            )

            recipes = [recipe]
            if isinstance(base, Path) and isinstance(search, SearchSettings):
                tried = candidates.expand_candidates(base, recipe, search)
                recipes = [candidate.recipe for candidate in tried]
            objections = [objection for each in recipes for objection in vllm_objections(each.peft)]
            if objections:
                listed = "; ".join(dict.fromkeys(objections))
                raise ValueError(f"engine: vllm, but of what is trained: {listed}")
        is_asked = "canaries" in evaluate.built_in
        if recipe.canaries != is_asked:
            raise ValueError(
                "built_in: asks for canaries that no training plants: set canaries: true under "
                "train, too"
                if is_asked
                else "built_in: train plants canaries, and nothing asks for them: add canaries"
            )
        return evaluate

    @field_validator("evaluate")
    @classmethod
    def _fits_rules(cls, evaluate: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
        rules = info.data.get("curate")
        if "secrets" not in evaluate.built_in or not isinstance(rules, Rules):
            return evaluate
        from components.curate.redaction import redactor  # noqa: PLC0415 - loads all patterns

        if not redactor.keeps_values(rules.redaction):
            raise ValueError(
                "built_in: secrets asks for values that redaction lets stay, and it lets none: "
                "leave it out; canaries show what a row gives away"
            )
        return evaluate

    @field_validator("train")
    @classmethod
    def _is_measured_on_something(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        """Refuse to measure on validation rows if curation sets none aside."""
        rules = info.data.get("curate")
        if recipe.eval_steps is None or not isinstance(rules, Rules) or rules.validation_share:
            return recipe
        if recipe.objective.kind in candidates.ANSWER_OBJECTIVES[:2]:
            raise ValueError(
                "eval_steps needs rows that are never learned: set validation_share under curate, "
                "such as 0.1"
            )
        return recipe

    @in_the_file("search")
    @classmethod
    def _fits(cls, search: SearchSettings | None, info: ValidationInfo) -> SearchSettings | None:
        """Take the bases to try from the file's own folder, and look at every candidate."""
        parts = [info.data.get(name) for name in ("base", "train", "curate")]
        if search is None or None in parts:
            return search
        base, recipe, rules = parts
        assert isinstance(base, Path) and isinstance(recipe, Recipe) and isinstance(rules, Rules)
        if not rules.validation_share:
            raise ValueError(
                "compares candidates on rows that none of them learns: set validation_share under "
                "curate, such as 0.1"
            )
        search = candidates.resolve_paths(search, source_entries.workload_folder(info))
        for candidate in candidates.expand_candidates(base, recipe, search):
            _model(candidate.base, info)
        return search

    @field_validator("gate")
    @classmethod
    def _is_measured(cls, policy: Policy, info: ValidationInfo) -> Policy:
        """Refuse a metric that no task measures, and tasks on which no challenger could pass."""
        evaluated = info.data.get("evaluate")
        if not isinstance(evaluated, EvaluationSettings):
            return policy
        measured = task_metrics.metric_names(evaluated)
        # A judge may be shown alone: whether it is evidence is not known beforehand.
        guarded = [task for task in measured if task != JUDGE_TASK]
        mistakes = [*policy.unmeasured(measured), *policy.unguarded(guarded)]
        if info.context is not None:  # documents of a frozen record may be gone by now
            counts = task_metrics.document_counts(evaluated, policy.min_documents)
            mistakes += policy.undersized(counts)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return policy

    @in_the_file("approve")
    @classmethod
    def _can_be_signed(cls, approve: Approving, info: ValidationInfo) -> Approving:
        """Take the approvers' keys from the file's own folder, and look for mistakes."""
        if approve.allowed_signers is not None:
            file = _resolve(approve.allowed_signers, info)
            approve = approve.model_copy(update={"allowed_signers": file})
        approve.rules()
        return approve

    @field_validator("collect_schedule", "turn_schedule")
    @classmethod
    def _is_cron(cls, text: str | None) -> str | None:
        return None if text is None else _cron(text)

    @field_validator("trigger")
    @classmethod
    def _looks_at_times(cls, trigger: Trigger | None) -> Trigger | None:
        if trigger is not None:
            _cron(trigger.schedule)
        return trigger

    @property
    def base_name(self) -> str:
        """The base's name in its adapters' files."""
        return self.base_served_as or str(self.base)

    def candidates(self) -> list[SearchCandidate]:
        """What the search tries, if there is one."""
        if self.search is None:
            return []
        return candidates.expand_candidates(self.base, self.train, self.search)

    def bases(self) -> list[Path]:
        """List its base and those that its search tries, each once."""
        tried = self.search.over.get(candidates.BASE_KNOB, []) if self.search else []
        return [*dict.fromkeys([self.base, *(Path(str(base)) for base in tried)])]

    def traffic(self) -> Traffic:
        """All that the sources stand for now, and which of them can't be listed."""
        listed = source_entries.list_traffic
        logs = listed(self.sources.logs, "interactions")
        return logs + listed(self.sources.feedback, "feedback")


def _cron(text: str) -> str:
    if _is_plain_cron(text):
        return text
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415 - slow to import

    try:
        return CronSchedule(cron=text).cron
    except ValidationError as error:
        raise ValueError(f"is not a cron line: {text!r}") from error


def _is_plain_cron(text: str) -> bool:
    """Return whether a cron line has only what Prefect accepts: numbers, ranges, steps, lists."""
    fields = text.split(" ")
    return len(fields) == len(CRON_BOUNDS) and all(map(_is_plain_field, fields, CRON_BOUNDS))


def _is_plain_field(field: str, bounds: tuple[int, int]) -> bool:
    low, high = bounds
    for part in field.split(","):
        match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:(?<=\*)/(\d{1,2}))?", part)
        if match is None:
            return False
        first, last, step = (int(number) if number else None for number in match.groups())
        if first is not None and not low <= first <= (first if last is None else last) <= high:
            return False
        if step is not None and not 1 <= step <= high:
            return False
    return True


def _resolve(path: str | Path, info: ValidationInfo) -> Path:
    return (source_entries.workload_folder(info) / path).resolve()


def _model(path: Path, info: ValidationInfo) -> Path:
    model = _resolve(path, info)
    if not (model / "config.json").is_file():
        raise ValueError(f"{model} has no config.json, expected a model folder")
    return model


def _resolve_guard(guard: GuardTask, info: ValidationInfo) -> GuardTask:
    is_own = guard.task.endswith(guards.DEFINITION_SUFFIXES)
    return guard.model_copy(
        update={
            "task": str(_resolve(guard.task, info)) if is_own else guard.task,
            "data": _resolve(guard.data, info),
            "examples": _resolve(guard.examples, info) if guard.examples else None,
        }
    )


class WorkloadError(ValueError):
    """A workload file that can't be used; ``mistakes`` holds a sentence for each reason."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        super().__init__("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes]))


def read_text(file: Path) -> str:
    """Read a workload's file; ``OSError`` unless it is a regular file of at most 1 MiB."""
    if file.exists() and not file.is_file():  # a pipe would never end
        raise OSError(errno.EINVAL, "it is not a regular file")
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    return content.decode()


def read_workload(path: Path) -> Workload:
    """Read a workload file, or raise ``WorkloadError`` with every mistake, not only the first."""
    try:
        raw = parse_yaml(read_text(path), path)
    except OSError as error:
        raise WorkloadError(path, [f"can't be read: {error.strerror}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # as of the date 2027-13-01
        raise WorkloadError(path, [f"is not YAML: {error}"]) from error
    if not isinstance(raw, dict):
        kind = "is empty" if raw is None else f"holds {kind_of(raw)}"
        raise WorkloadError(path, [f"{kind}, expected a mapping of settings"])
    folder = path.resolve().parent
    try:
        return Workload.model_validate(raw, context=folder)
    except ValidationError as error:
        raise WorkloadError(path, every_mistake(error, Workload, raw, folder)) from error
