"""Draft a workload file from what logs show: each setting with the reason for its value."""

import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from components.collect import places
from components.collect.source import Defaults
from components.collect.survey import FeedbackJoin, LoggedWorkload, SurveyedFile
from components.curate.settings import Rules
from components.gate.policy import Policy
from components.models import device, machine
from components.train.plan import bases
from components.train.plan.bases import TrainableBase
from flows.cli.log_profile import LogProfile, TextLengths
from flows.source_entries import MLFLOW

TEMPLATE = Path(__file__).with_name("workload_file.yaml.j2")
WIDTH = 98

FEWEST_JOINED = 0.5  # where a smaller share of the feedback joins, something is wrong with its ids

# With fewer sets of tools, a holdout of unseen tools would consist of two or three.
FEWEST_TOOL_LISTS = 20

# A tool in a larger share of the requests can't be held out: curation drops every request that
# offers a tool of the holdout, which would leave few to train on.
MAX_OFFERED = 0.2

FEWEST_CHOICES = 100  # choices between two answers from which learning pairs is worth a try

LARGEST_HOLDOUT = 0.4

MAX_HELD_OUT = 5000
"""Requests: each evaluation answers all of them, and no later share takes one back."""

TEMPLATE_TOKENS = 64  # tokens that a chat template adds to a request of a few messages

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+@-]*")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"})


@dataclass(frozen=True, slots=True)
class ChosenBase:
    """The base of a workload file, and the reason; ``command`` downloads a missing one."""

    path: str
    folder: TrainableBase | None
    reason: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadDraft:
    """The text of a workload file, and what its logs lack."""

    text: str
    missing: Sequence[str]


def choose_base(named: Path | None, folders: Iterable[Path], target: Path) -> ChosenBase:
    """Choose the base for this machine: the one named, the largest that fits, or a suggestion.

    Args:
        named: The folder that a person named.
        folders: Other folders that may hold models.
        target: The workload file, whose folder relative paths start from.

    Raises:
        ValueError: The named folder is not a model folder.
    """
    gpu = device.graphics_memory()
    free = machine.available_memory() if gpu is None else gpu
    where = "main memory that is free" if gpu is None else "the GPU's memory"
    if named is not None and bases.read(named) is None:
        raise ValueError(
            f"{named} is not a model folder: expected config.json, *.safetensors and a tokenizer"
        )
    limit = 2**62 if named else free
    candidates = [named] if named else folders
    if base := bases.choose(candidates, free=limit, is_gpu=gpu is not None or named is not None):
        need = base.on_cpu if gpu is None else base.on_gpu
        return ChosenBase(
            relative(str(base.path), target),
            base,
            f"A model of {base.parameters / 1e6:,.3g} million parameters"
            f"{'' if named else ', the largest found that fits'}: training takes about "
            f"{need / 1e9:.1f} GB of the {free / 1e9:.1f} GB of {where} (estimated; "
            "`flywheel train --plan` calculates it).",
        )
    suggested = bases.suggest(free=free, is_gpu=gpu is not None)
    path = f"models/{suggested.name.rpartition('/')[2]}"
    folder = target.parent / path
    return ChosenBase(
        path,
        None,
        f"MISSING: no model that fits was found. {suggested.name} fits into the {free / 1e9:.1f} "
        f"GB of {where}; any folder with safetensors, config and tokenizer will do.",
        f"hf download {suggested.name} --local-dir {folder}",
    )


def draft(
    logged: LoggedWorkload,
    profile: LogProfile,
    joins: Sequence[FeedbackJoin],
    files: Mapping[str, Sequence[SurveyedFile]],
    base: ChosenBase,
    target: Path,
    sampling: str,
) -> WorkloadDraft:
    """Write a workload file.

    Args:
        logged: The workload in the logs.
        profile: The profile of a sample of it.
        joins: The feedback about it.
        files: The surveyed files by the place that was named.
        base: The base.
        target: Where the file will be written.
        sampling: A sentence on the part of the logs that was read; empty for all.
    """
    log_paths = set(logged.paths)
    feedback_paths = {path for join in joins for path in join.paths} - log_paths
    share = holdout_share(logged.interactions)
    missing = _missing(logged, profile, joins, base, share)
    most_chars = Rules.model_fields["max_prompt_chars"].default
    can_hold_out_tools = (
        profile.tool_lists >= FEWEST_TOOL_LISTS
        and profile.most_offered <= MAX_OFFERED * profile.offered
    )
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    filters: dict[str, Any] = environment.filters
    filters.update(
        comment=_comment,
        entry=_entry,
        lengths=_lengths,
        number=_number,
        scalar=_scalar,
        share=_share,
    )
    text = environment.from_string(TEMPLATE.read_text()).render(
        logged=logged,
        profile=profile,
        name=target.name,
        sampling=sampling,
        missing=missing,
        base=base,
        logs=_entries(files, log_paths, target),
        feedback=_entries(files, feedback_paths, target),
        loaded=[file.loaded for members in files.values() for file in members],
        joins=joins,
        split_by="tools" if can_hold_out_tools else "conversation",
        holdout_share=share,
        validation_share=float(f"{share / 2:.2g}"),
        is_large=share < Rules.model_fields["holdout_share"].default,
        most_held_out=MAX_HELD_OUT,
        held_out=int(share * logged.interactions),
        is_long=profile.prompt_characters.high > most_chars,
        max_prompt_chars=_rounded(profile.prompt_characters.high, 1000),
        languages=_shown_languages(profile),
        clear=sum(profile.languages.values()),
        counting="counted with the base's tokenizer"
        if base.folder
        else "estimated, 4 bytes a token",
        max_length=_rounded(int(1.1 * profile.total_tokens.high) + TEMPLATE_TOKENS, 256),
        max_new_tokens=_rounded(int(1.25 * profile.answer_tokens.high), 32),
        kind=profile.answers.kind,
        labels=profile.answers.labels,
        can_choose=sum(join.joined for join in joins if join.kind == "choice") >= FEWEST_CHOICES,
    )
    return WorkloadDraft(text, missing)


def _shown_languages(profile: LogProfile) -> list[tuple[str, int]]:
    """Return languages by their requests, without those that would be shown as 0 %."""
    fewest = 0.005 * sum(profile.languages.values())
    by_count = sorted(profile.languages.items(), key=lambda item: (-item[1], item[0]))
    return [(name, count) for name, count in by_count if count >= fewest]


def relative(path: str, target: Path) -> str:
    """Return a path relative to the workload file's folder, or absolute where it lies elsewhere."""
    if places.REMOTE in path or path.startswith(MLFLOW):
        return path
    folder, absolute = target.absolute().parent, Path(path).absolute()
    if Path(path).is_absolute() and not absolute.is_relative_to(folder):
        return path
    return os.path.relpath(absolute, folder)


def _missing(
    logged: LoggedWorkload,
    profile: LogProfile,
    joins: Sequence[FeedbackJoin],
    base: ChosenBase,
    share: float,
) -> list[str]:
    fewest = Policy.model_fields["min_documents"].default
    held_out = int(share * logged.interactions)
    events, joined = sum(join.events for join in joins), sum(join.joined for join in joins)
    otherwise = sum(join.named_otherwise for join in joins)
    checks = [
        (base.command is not None, f"no base: {base.command}"),
        (
            held_out < fewest,
            f"too few requests: about {held_out} of {logged.interactions} will be held out, and "
            f"the gate passes nothing that was measured on fewer than {fewest}",
        ),
        (
            not events,
            "no feedback: the answers are learned as they are, good or bad; `flywheel review` asks "
            "people about the most useful ones",
        ),
        (
            events > 0 and joined < FEWEST_JOINED * events,
            f"only {joined:,} of {events:,} feedback events join: response_id must be the logged "
            "response's `id`, or conversation_id that of a logged conversation"
            + f"; {otherwise:,} would join if their workload_id and client_id were those of the "
            "response" * bool(otherwise),
        ),
        (
            profile.answers.kind == "tool_calls" and not profile.offered,
            "no tools: answers call tools, but the requests offer none, and curation drops calls "
            "of tools that were not offered (`unknown_tool`); log `request.tools`",
        ),
        (
            profile.conversations < 0.1 * profile.sampled,
            f"few conversations: {profile.sampled:,} requests have {profile.conversations:,} "
            "different openings; requests with one opening stay on one side of the split",
        ),
        (
            logged.last_at.year < 1980,
            "no times: the rows have no timestamp, so the monitor and the trigger see nothing new",
        ),
    ]
    return [text for is_missing, text in checks if is_missing]


def holdout_share(interactions: int) -> float:
    """Return the default share, or one that holds out as many as the gate requires, or fewer."""
    default = float(Rules.model_fields["holdout_share"].default)
    fewest = int(Policy.model_fields["min_documents"].default)
    if default * interactions > MAX_HELD_OUT:
        return float(f"{MAX_HELD_OUT / interactions:.2g}")
    if default * interactions >= 1.5 * fewest:
        return default
    return LARGEST_HOLDOUT if LARGEST_HOLDOUT * interactions >= fewest else default


def _entries(
    files: Mapping[str, Sequence[SurveyedFile]], paths: set[str], target: Path
) -> list[dict[str, str]]:
    """List the sources that cover ``paths``: the places as they were named, or less."""
    entries: list[dict[str, str]] = []
    for place, members in files.items():
        chosen = [file for file in members if file.input.stored_place in paths]
        for settings in dict.fromkeys(_settings(file) for file in chosen):
            alike = [f.input.place for f in chosen if _settings(f) == settings]
            covering = [place] if len(alike) == len(members) else _covering(alike)
            entries += [{"path": relative(path, target), **dict(settings)} for path in covering]
    return list({entry["path"]: entry for entry in entries}.values())


def _settings(file: SurveyedFile) -> tuple[tuple[str, str], ...]:
    defaults: Defaults = file.input.defaults
    named = {
        "source": file.input.source or "",
        "workload_id": defaults.workload_id,
        "client_id": defaults.client_id,
    }
    return tuple((key, value) for key, value in named.items() if value)


def _covering(paths: Sequence[str]) -> list[str]:
    """Name files by a glob for each folder and ending where it matches no other, else singly."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        ending = "".join(Path(name).suffixes[-2:])
        groups.setdefault(f"{parent}/*{ending}" if parent else f"*{ending}", []).append(path)
    return [
        path
        for pattern, members in groups.items()
        for path in (
            [pattern]
            if len(members) > 1
            and places.REMOTE not in pattern
            and set(places.matching_files(pattern)) == set(members)
            else members
        )
    ]


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step


def _comment(text: str, indent: int = 0) -> str:
    # A text from a log can't leave its comment: control characters, too, become spaces.
    start = " " * indent + "# "
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    lines = textwrap.fill(
        clean,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines + "\n"


def _scalar(value: str) -> str:
    # Quoted unless YAML reads it as the same string without quotes.
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return value if is_plain else json.dumps(value)


def _entry(entry: Mapping[str, str]) -> str:
    if len(entry) == 1:
        return _scalar(entry["path"])
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in entry.items()) + "}"


def _lengths(lengths: TextLengths) -> str:
    return (
        f"{lengths.median:,} (median), 95 % up to {lengths.high:,}, the longest {lengths.longest:,}"
    )


def _number(number: int) -> str:
    return f"{number:,}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
