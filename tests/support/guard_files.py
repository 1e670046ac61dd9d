"""Small guard tasks: a file of documents, and a task's YAML of one's own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.evaluate.settings import GuardTask
from components.schema import Json

SUMS: list[dict[str, Json]] = [
    {"question": f"{n} + {n}", "choices": [str(2 * n), str(2 * n + 1), "none"], "right": 0}
    for n in range(1, 9)
]

CHOICE = """\
task: sums
output_type: multiple_choice
doc_to_text: "What is {{question}}?"
doc_to_target: right
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 3}
"""

WRITTEN = """\
task: written
output_type: generate_until
doc_to_text: "{{question}} ="
doc_to_target: "{{choices[right]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "(\\\\S+)"}, {function: take_first}]
  - {name: as-it-is, filter: [{function: take_first}]}
"""


def documents(path: Path, rows: Sequence[Mapping[str, object]] = SUMS) -> Path:
    """Write documents, a JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sums(folder: Path, **settings: object) -> GuardTask:
    """Make a task whose every right answer is the first choice; ``settings`` say what differs."""
    path = folder / "sums.yaml"
    if not path.exists():
        path.write_text(CHOICE)
    data = folder / "sums.jsonl"
    if not data.exists():
        documents(data)
    return GuardTask.model_validate({"task": str(path), "data": data, "metric": "acc", **settings})


def written(folder: Path, **settings: object) -> GuardTask:
    """Make a task whose answers are written, and read in two ways."""
    (folder / "written.yaml").write_text(WRITTEN)
    told = {"task": str(folder / "written.yaml"), "metric": "exact_match", **settings}
    return sums(folder, **told)
