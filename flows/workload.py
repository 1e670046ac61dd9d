"""The one YAML file that describes a workload, as a record that can't hold a mistake."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from components.collect.record import Input
from components.costs import Prices
from components.curate.redaction import staying
from components.curate.settings import Rules
from components.decide.approvers import Approving
from components.evaluate import definition, measurement
from components.evaluate import guards as guard_tasks
from components.evaluate.judging import settings as judging
from components.evaluate.settings import EvaluationSettings, GuardTask
from components.evaluate.vllm_limits import objections
from components.gate.policy import Policy
from components.schema import Config
from components.train.plan.fitting import Worker
from components.train.recipe import Recipe
from components.train.search import grid
from components.train.search.grid import Candidate
from components.train.search.settings import Search
from components.trigger.settings import Trigger
from flows import sources
from flows.sources import Sources, in_the_file

CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
"""The least and the greatest number in each field of a cron line."""

WORKLOAD_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
WorkloadId = Annotated[str, StringConstraints(pattern=WORKLOAD_ID)]


class Workload(Config):
    """One kind of request: its traffic, and how its adapter is trained, measured and judged."""

    workload: WorkloadId
    """Rows of the logs with this ``workload_id`` belong here; names the registered model, too."""

    base: Path
    """Folder of the pretrained model (safetensors, config, tokenizer), relative to this file."""

    base_served_as: str | None = Field(default=None, min_length=1)
    """The base's name where its adapters are served (vLLM's ``--served-model-name``), which they
    then give as ``base_model_name_or_path``; they give the base's folder if it is left out."""

    sources: Sources = Field(default_factory=Sources)
    """Where its traffic lies; may be left out where all of it comes through the receiver."""

    note: str = ""
    """Shown to whoever approves: what the numbers can't say about this traffic."""

    collect_schedule: str = "7 * * * *"
    """Cron line (UTC) of the scheduled ``collect`` runs."""

    turn_schedule: str | None = "30 2 * * *"
    """Cron line (UTC) of the scheduled turns; ``null``: only the trigger or a person starts one."""

    trigger: Trigger | None = None
    """Which signs start a turn between the scheduled ones; without it none does."""

    retention_days: int | None = Field(default=None, ge=1)
    """Older rows that no snapshot names leave the warehouse for Parquet; all stay if unset."""

    curate: Rules = Field(default_factory=Rules)
    train: Recipe = Field(default_factory=Recipe)
    worker: Worker = Field(default_factory=Worker)

    search: Search | None = None
    """Several recipes or bases to try in each turn instead of one, of which the best is trained to
    its end; wants ``validation_share`` under ``curate``."""

    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings, validate_default=True)
    gate: Policy = Field(default_factory=Policy, validate_default=True)

    approve: Approving = Field(default_factory=Approving)
    """Who may decide about a challenger, and what proves the name."""

    cost: Prices = Field(default_factory=Prices)
    """What answers and training cost; the report says which price is missing for which figure."""

    @in_the_file("base")
    @classmethod
    def _is_model(cls, base: Path, info: ValidationInfo) -> Path:
        return _model(base, info)

    @in_the_file("curate")
    @classmethod
    def _replays_what_is_there(cls, rules: Rules, info: ValidationInfo) -> Rules:
        """Take the places of replayed rows from the file's own folder."""
        replay = rules.balance.replay
        if replay is None:
            return rules
        found = [(sources.folder(info) / source).resolve() for source in replay.sources]
        if missing := [str(path) for path in found if not path.exists()]:
            raise ValueError(f"balance.replay.sources: nothing is at {', '.join(missing)}")
        replay = replay.model_copy(update={"sources": found})
        balance = rules.balance.model_copy(update={"replay": replay})
        return rules.model_copy(update={"balance": balance})

    @in_the_file("curate")
    @classmethod
    def _guards_are_there(cls, rules: Rules, info: ValidationInfo) -> Rules:
        """Take the guard tasks' documents from the file's own folder."""
        found = [str((sources.folder(info) / path).resolve()) for path in rules.overlap.guards]
        if missing := [path for path in found if not Path(path).is_file()]:
            raise ValueError(f"overlap.guards: no file is at {', '.join(missing)}")
        overlap = rules.overlap.model_copy(update={"guards": tuple(found)})
        return rules.model_copy(update={"overlap": overlap})

    @in_the_file("train")
    @classmethod
    def _teacher_is_model(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        """Take the teacher of a distillation from the file's own folder."""
        objective = recipe.objective
        if objective.kind != "distillation":
            return recipe
        found = (sources.folder(info) / objective.teacher_model_name_or_path).resolve()
        if not any((found / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ValueError(
                f"objective.teacher_model_name_or_path: {found} has neither config.json nor "
                "adapter_config.json, wants a model's or an adapter's folder"
            )
        taught = objective.model_copy(update={"teacher_model_name_or_path": found})
        return recipe.model_copy(update={"objective": taught})

    @in_the_file("evaluate")
    @classmethod
    def _tasks_are_there(
        cls, evaluate: EvaluationSettings, info: ValidationInfo
    ) -> EvaluationSettings:
        """Take the guard tasks' files from the file's own folder, and look each task over."""
        tasks = tuple(_guard_beside(one, sources.folder(info)) for one in evaluate.tasks)
        if found := guard_tasks.mistakes(tasks):
            raise ValueError(f"tasks: {'; '.join(found)}")
        return evaluate.model_copy(update={"tasks": tasks})

    @field_validator("evaluate")
    @classmethod
    def _as_it_is_trained(
        cls, evaluate: EvaluationSettings, info: ValidationInfo
    ) -> EvaluationSettings:
        """Measure, and so serve, at the precision that trains, unless the file says another."""
        recipe = info.data.get("train")
        if not isinstance(recipe, Recipe) or "precision" in evaluate.model_fields_set:
            return evaluate
        return evaluate.model_copy(update={"precision": recipe.precision})

    @field_validator("evaluate")
    @classmethod
    def _puts_on_what_is_trained(
        cls, evaluate: EvaluationSettings, info: ValidationInfo
    ) -> EvaluationSettings:
        """Refuse an engine that can't put on what this file trains."""
        base, recipe, search = (info.data.get(name) for name in ("base", "train", "search"))
        if evaluate.engine != "vllm" or not isinstance(recipe, Recipe):
            return evaluate
        recipes = [recipe]
        if isinstance(base, Path) and isinstance(search, Search):
            recipes = [one.recipe for one in grid.expand(base, recipe, search)]
        if found := dict.fromkeys(said for one in recipes for said in objections(one.peft)):
            raise ValueError(f"engine: vllm, but of what is trained: {'; '.join(found)}")
        return evaluate

    @field_validator("evaluate")
    @classmethod
    def _asks_for_secrets_that_stay(
        cls, evaluate: EvaluationSettings, info: ValidationInfo
    ) -> EvaluationSettings:
        """Refuse to ask for values that redaction lets stay where it lets none."""
        rules = info.data.get("curate")
        is_asked = "secrets" in evaluate.built_in
        if is_asked and isinstance(rules, Rules) and not staying.lets_stay(rules.redaction):
            raise ValueError(
                "built_in: secrets asks for values that redaction lets stay, and it lets none: "
                "leave it out; canaries show what a row gives away"
            )
        return evaluate

    @field_validator("evaluate")
    @classmethod
    def _asks_for_canaries_that_are_planted(
        cls, evaluate: EvaluationSettings, info: ValidationInfo
    ) -> EvaluationSettings:
        """Refuse canaries that are planted and never asked for, or the other way round."""
        recipe = info.data.get("train")
        is_asked = "canaries" in evaluate.built_in
        if isinstance(recipe, Recipe) and recipe.canaries != is_asked:
            raise ValueError(
                "built_in: asks for canaries that no training plants: set canaries: true under "
                "train, too"
                if is_asked
                else "built_in: train plants canaries, and nothing asks for them: add canaries"
            )
        return evaluate

    @field_validator("train")
    @classmethod
    def _is_measured_on_something(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        """Refuse to measure on validation rows where curation puts none aside."""
        rules = info.data.get("curate")
        if recipe.eval_steps is None or not isinstance(rules, Rules) or rules.validation_share:
            return recipe
        if recipe.objective.kind in grid.ANSWERING[:2]:
            raise ValueError(
                "eval_steps wants rows that are never learned: set validation_share under curate, "
                "such as 0.1"
            )
        return recipe

    @in_the_file("search")
    @classmethod
    def _can_be_tried(cls, search: Search | None, info: ValidationInfo) -> Search | None:
        """Take the bases to try from the file's own folder, and look at every candidate."""
        wanted = [info.data.get(name) for name in ("base", "train", "curate")]
        if search is None or None in wanted:
            return search
        base, recipe, rules = wanted
        assert isinstance(base, Path) and isinstance(recipe, Recipe) and isinstance(rules, Rules)
        if not rules.validation_share:
            raise ValueError(
                "compares candidates on rows that none of them learns: set validation_share under "
                "curate, such as 0.1"
            )
        search = grid.beside(search, sources.folder(info))
        for one in grid.expand(base, recipe, search):
            _model(one.base, info)
        return search

    @field_validator("gate")
    @classmethod
    def _is_measured(cls, policy: Policy, info: ValidationInfo) -> Policy:
        """Refuse to judge by what no task measures."""
        evaluated = info.data.get("evaluate")
        if not isinstance(evaluated, EvaluationSettings):
            return policy
        measured = measurement.metrics(evaluated, evaluated.kind)
        # A judge may be shown alone: whether it is evidence is not known beforehand.
        wanted = [task for task in measured if task != judging.TASK]
        if mistakes := [*policy.unmeasured(measured), *policy.unguarded(wanted)]:
            raise ValueError("; ".join(mistakes))
        return policy

    @in_the_file("approve")
    @classmethod
    def _can_be_signed(cls, approve: Approving, info: ValidationInfo) -> Approving:
        """Take the approvers' keys from the file's own folder, and look for mistakes."""
        if approve.allowed_signers is not None:
            file = (sources.folder(info) / approve.allowed_signers).resolve()
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
        """What its adapters say that their base is called."""
        return self.base_served_as or str(self.base)

    def candidates(self) -> list[Candidate]:
        """What the search tries, if there is one."""
        return grid.expand(self.base, self.train, self.search) if self.search else []

    def log_files(self) -> list[Input]:
        """Every log file that exists now, sorted."""
        return sources.inputs(self.sources.logs, "interactions")

    def feedback_files(self) -> list[Input]:
        """Every feedback file that exists now, sorted."""
        return sources.inputs(self.sources.feedback, "feedback")


def _cron(text: str) -> str:
    if _is_plain_cron(text):
        return text
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415 - slow to import

    try:
        return CronSchedule(cron=text).cron
    except ValidationError as error:
        raise ValueError(f"is no cron line: {text!r}") from error


def _is_plain_cron(text: str) -> bool:
    """Return whether a line has only what Prefect surely takes: numbers, ranges, steps, lists."""
    fields = text.split(" ")
    return len(fields) == len(CRON_BOUNDS) and all(map(_is_plain_field, fields, CRON_BOUNDS))


def _is_plain_field(field: str, bounds: tuple[int, int]) -> bool:
    low, high = bounds
    for part in field.split(","):
        match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:(?<=\*)/(\d{1,2}))?", part)
        if match is None:
            return False
        first, last, step = (int(found) if found else None for found in match.groups())
        if first is not None and not low <= first <= (first if last is None else last) <= high:
            return False
        if step is not None and not 1 <= step <= high:
            return False
    return True


def _model(path: Path, info: ValidationInfo) -> Path:
    """Take a model's folder from that of the file."""
    found = (sources.folder(info) / path).resolve()
    if not (found / "config.json").is_file():
        raise ValueError(f"{found} has no config.json, wants a model folder")
    return found


def _guard_beside(one: GuardTask, folder: Path) -> GuardTask:
    is_own = one.task.endswith(definition.ENDINGS)
    return one.model_copy(
        update={
            "task": str((folder / one.task).resolve()) if is_own else one.task,
            "data": (folder / one.data).resolve(),
            "examples": (folder / one.examples).resolve() if one.examples else None,
        }
    )
