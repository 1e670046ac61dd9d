"""Draft a workload file from what logs show: each setting with the reason for its value."""

import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from jinja2 import Environment, StrictUndefined

from components.collect import files
from components.collect.source import Defaults
from components.collect.survey import FeedbackJoin, LoggedWorkload, SurveyedFile
from components.curate.settings import Rules
from components.gate.policy import Policy
from components.models import device
from components.train.plan import bases
from components.train.plan.bases import TrainableBase
from flows.cli.init_command import LogProfile, TextLengths
from flows.sources import MLFLOW

TEMPLATE = Path(__file__).with_name("workload_file.yaml.j2")
WIDTH = 98

FEWEST_JOINED = 0.5  # where a smaller share of the feedback joins, something is wrong with its ids

FEWEST_TOOL_LISTS = 20
"""With fewer different sets of tools, a holdout of unseen tools would consist of two or three."""

MOST_OFFERED = 0.2
"""Where a tool is offered in a larger share of the requests, holding it out leaves few to train on:
curation drops every request that offers a tool of the holdout."""

FEWEST_CHOICES = 100  # choices between two answers from which learning pairs is worth a try

LARGEST_HOLDOUT = 0.4

TEMPLATE_TOKENS = 64  # tokens that a chat template adds to a request of a few messages

METRICS = {"tool_calls": "correct_name", "classification": "label", "text": "rouge_l"}
FLOORS = {"tool_calls": 0.5, "classification": 0.5, "text": 0.2}

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+@-]*")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"})


@dataclass(frozen=True, slots=True)
class ChosenBase:
    """The base that a workload file names, and why; ``command`` downloads one that is missing."""

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
        folders: Where else models may lie.
        target: The workload file, whose folder relative paths start from.

    Raises:
        ValueError: The named folder is not a model's.
    """
    gpu = device.graphics_memory()
    free = psutil.virtual_memory().available if gpu is None else gpu
    where = "main memory that is free" if gpu is None else "the GPU's memory"
    if named is not None and bases.read(named) is None:
        raise ValueError(
            f"{named} is not a model folder: expected config.json, *.safetensors and a tokenizer"
        )
    wanted = [named] if named else folders
    limit = 2**62 if named else free
    if base := bases.choose(wanted, free=limit, is_gpu=gpu is not None or named is not None):
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
    feedback: Sequence[FeedbackJoin],
    files: Mapping[str, Sequence[SurveyedFile]],
    base: ChosenBase,
    target: Path,
    sampling: str,
) -> WorkloadDraft:
    """Write a workload file.

    Args:
        logged: The workload in the logs.
        profile: What a sample of it shows.
        feedback: The feedback about it.
        files: The surveyed files by the place that was named.
        base: The base.
        target: Where the file will be written.
        sampling: Which part of the logs was read; empty for all.
    """
    log_paths = set(logged.paths)
    feedback_paths = {path for one in feedback for path in one.paths} - log_paths
    share = _holdout_share(logged.interactions)
    missing = _missing(logged, profile, feedback, base, share)
    counted = base.folder is not None
    lengths = "counted with the base's tokenizer" if counted else "estimated, 4 bytes a token"
    most_chars = Rules.model_fields["max_prompt_chars"].default
    text = (
        _environment()
        .from_string(TEMPLATE.read_text())
        .render(
            logged=logged,
            profile=profile,
            name=target.name,
            sampling_note=_sampling_note(logged, profile, target, sampling),
            missing=missing,
            base=base,
            logs=_entries(files, log_paths, target),
            feedback=_entries(files, feedback_paths, target),
            left_out=_left_out(files),
            joins=[_join_note(one) for one in feedback] or ["No feedback was found for it."],
            split_by=_split_by(profile),
            split_note=_split_note(profile),
            holdout_share=share,
            is_long=profile.prompt_characters.high > most_chars,
            max_prompt_chars=_rounded(profile.prompt_characters.high, 1000),
            languages=_languages(profile),
            max_length=_rounded(int(1.1 * profile.total_tokens.high) + TEMPLATE_TOKENS, 256),
            held_out=int(share * logged.interactions),
            max_new_tokens=_rounded(int(1.25 * profile.answer_tokens.high), 32),
            lengths=lengths,
            kind_note=_kind_note(profile),
            metric=METRICS[profile.answers.kind],
            floor=FLOORS[profile.answers.kind],
            floor_note=_floor_note(profile),
            abstention_note=_abstention_note(profile),
            abstention_margin="0.1" if profile.calling < profile.sampled else "null",
            can_choose=_choices(feedback) >= FEWEST_CHOICES,
        )
    )
    return WorkloadDraft(text, missing)


def relative(path: str, target: Path) -> str:
    """Write a path as the workload file has it: from the file's own folder, where that is short."""
    if files.REMOTE in path or path.startswith(MLFLOW):
        return path
    folder, absolute = target.absolute().parent, Path(path).absolute()
    if Path(path).is_absolute() and not absolute.is_relative_to(folder):
        return path
    return os.path.relpath(absolute, folder)


def _sampling_note(logged: LoggedWorkload, profile: LogProfile, target: Path, sampling: str) -> str:
    is_sample = profile.sampled + profile.unreadable < logged.interactions
    part = f"a random sample of {profile.sampled:,}" if is_sample else "all of them"
    unreadable = f"; {profile.unreadable:,} more are not chat completions" * bool(
        profile.unreadable
    )
    return (
        f"{sampling}Languages and lengths are of {part}{unreadable}. Change what you know better; "
        f"`flywheel check {target.name}` lists mistakes."
    )


def _missing(
    logged: LoggedWorkload,
    profile: LogProfile,
    feedback: Sequence[FeedbackJoin],
    base: ChosenBase,
    share: float,
) -> list[str]:
    """List what keeps the workload from a useful turn, or what it could do without."""
    fewest = Policy.model_fields["min_documents"].default
    held_out = int(share * logged.interactions)
    events, joined = sum(one.events for one in feedback), sum(one.joined for one in feedback)
    elsewhere = sum(one.of_other_clients for one in feedback)
    calls = profile.answers.kind == "tool_calls"
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
            + (
                f"; {elsewhere:,} would join if their client_id were that of the response"
                if elsewhere
                else ""
            ),
        ),
        (
            calls and not profile.offered,
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


def _holdout_share(interactions: int) -> float:
    """Return the default share, or a larger one if that holds out as many as the gate asks for."""
    default = float(Rules.model_fields["holdout_share"].default)
    fewest = int(Policy.model_fields["min_documents"].default)
    if default * interactions >= 1.5 * fewest:
        return default
    return LARGEST_HOLDOUT if LARGEST_HOLDOUT * interactions >= fewest else default


def _split_by(profile: LogProfile) -> str:
    is_shared = profile.most_offered > MOST_OFFERED * profile.offered
    return "tools" if profile.tool_lists >= FEWEST_TOOL_LISTS and not is_shared else "conversation"


def _offered(profile: LogProfile) -> str:
    if not profile.offered:
        return "No request offers tools."
    return (
        f"{_share(profile.offered, profile.sampled)} of the requests offer tools, "
        f"{profile.tool_lists:,} different sets of them; the most frequent tool is in "
        f"{_share(profile.most_offered, profile.offered)} of these."
    )


def _split_note(profile: LogProfile) -> str:
    users = f"{profile.users:,} users are named." if profile.users else "No user is named."
    if _split_by(profile) == "tools":
        return (
            f"{_offered(profile)} {users} The holdout consists of tools that training never sees; "
            "with `conversation` it consists of unseen conversations, with `user` of unseen users."
        )
    return (
        f"{_offered(profile)} {users} The holdout consists of conversations that training never "
        "sees; with `user` of unseen users."
    )


def _languages(profile: LogProfile) -> Mapping[str, str]:
    """Describe the languages of requests, and name those that are common."""
    known = sum(profile.languages.values())
    ordered = sorted(profile.languages.items(), key=lambda item: (-item[1], item[0]))
    if not known:
        return {
            "note": "No language could be told for sure: the requests are short.",
            "list": "any",
        }
    shown = ", ".join(f"{name} {_share(count, known)}" for name, count in ordered[:6])
    common = [name for name, count in ordered if count >= 0.02 * known]
    return {
        "note": f"Languages of the requests: {shown} (of {_share(known, profile.sampled)} whose "
        "language is clear). This would drop answers in any other:",
        "list": f"[{', '.join(common)}]",
    }


def _kind_note(profile: LogProfile) -> str:
    match profile.answers.kind:
        case "tool_calls":
            return (
                f"{_share(profile.calling, profile.sampled)} of the answers call tools, the others "
                "are texts."
            )
        case "classification":
            labels = ", ".join(repr(label) for label in profile.answers.labels[:8])
            more = len(profile.answers.labels) - 8
            return (
                f"The answers are {len(profile.answers.labels)} labels: {labels}"
                f"{f' and {more} more' if more > 0 else ''}."
            )
        case "text":
            return "The answers are texts: neither calls nor one of a few labels."


def _floor_note(profile: LogProfile) -> str:
    always = _share(profile.most_frequent, profile.sampled)
    match profile.answers.kind:
        case "tool_calls":
            return "A challenger with a lower score fails, however bad the base is."
        case "classification":
            return (
                f"A challenger with a lower score fails; always answering the most frequent label "
                f"scores {always}."
            )
        case "text":
            return (
                "A challenger with a lower score fails. A good answer may use other words than the "
                "reference: `judge` under `evaluate` compares texts by a large model."
            )


def _abstention_note(profile: LogProfile) -> str:
    if profile.calling < profile.sampled:
        return "Guard: calling no tool where none fits may get worse by at most this share."
    return (
        "Suggested guard, off: every logged answer calls a tool, so whether the adapter calls none "
        "where none fits can't be measured. 0.1 once the log has such answers."
    )


def _join_note(join: FeedbackJoin) -> str:
    note = f"{join.events:,} {join.kind}: {_share(join.joined, join.events)} join a logged response"
    if join.of_other_clients:
        note += f", {join.of_other_clients:,} only one of another client_id"
    return note


def _choices(feedback: Sequence[FeedbackJoin]) -> int:
    return sum(one.joined for one in feedback if one.kind == "choice")


def _entries(
    files: Mapping[str, Sequence[SurveyedFile]], paths: set[str], target: Path
) -> list[dict[str, str]]:
    """List the sources that cover ``paths``: the places as they were named, or less."""
    entries: list[dict[str, str]] = []
    for place, members in files.items():
        chosen = [file for file in members if file.input.place in paths]
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
            and files.REMOTE not in pattern
            and set(files.matching_files(pattern)) == set(members)
            else members
        )
    ]


def _left_out(files: Mapping[str, Sequence[SurveyedFile]]) -> list[str]:
    loaded = [file.loaded for members in files.values() for file in members]
    return [
        f"Left out: {one.path}, of which no line can be loaded ({one.reasons[0].reason})."
        for one in loaded
        if not one.new and not one.known and one.reasons
    ]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step


def _environment() -> Environment:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "comment": _comment,
        "scalar": _scalar,
        "entry": _entry,
        "spread": _spread,
    }
    return environment


def _comment(text: str, indent: int = 0) -> str:
    """Write a text as comment lines, whatever it quotes."""
    start = " " * indent + "# "
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return textwrap.fill(
        clean,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _scalar(value: str) -> str:
    """Quote a string unless YAML reads it as the same string without quotes."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return value if is_plain else json.dumps(value)


def _entry(entry: Mapping[str, str]) -> str:
    if len(entry) == 1:
        return _scalar(entry["path"])
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in entry.items()) + "}"


def _spread(lengths: TextLengths) -> str:
    return (
        f"{lengths.median:,} (median), 95 % up to {lengths.high:,}, the longest {lengths.longest:,}"
    )
