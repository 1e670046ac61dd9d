"""What keeps generated answers within the offered tools or the labels, and what came of it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

from components.chat import answer_grammar, dialects, tool_schema
from components.chat.answer_grammar import UnsupportedSchemaError
from components.chat.dialects import Dialect
from components.evaluate.holdout_task import Document, EvaluatedSide
from components.schema import Call, Json
from components.scorecard import ConstrainedAnswers, Sample


class AnswerConstraint:
    """The grammars of a side's answers, for one model.

    A request whose tools can't be expressed as a grammar is answered freely, and counted.
    """

    def __init__(self, side: EvaluatedSide) -> None:
        self._side = side
        self._free: Counter[str] = Counter()
        labels = side.answers.labels
        self._labels = answer_grammar.of_labels(labels) if labels else None
        self._grammars = {d["example_id"]: self._write(d) for d in side.documents}

    def grammar(self, document: Mapping[str, str]) -> str | None:
        """Return the grammar of a document's answer; ``None`` where any text is one."""
        return self._grammars[document["example_id"]]

    def note(self, problem: str) -> None:
        """Count an answer that was not kept within its grammar."""
        self._free[problem] += 1

    def outcome(self, samples: Iterable[Sample]) -> ConstrainedAnswers:
        """Count the calls that were made, and those that fit the offered tools."""
        documents = {document["example_id"]: document for document in self._side.documents}
        fitting = [
            tool_schema.is_offered(call, document["tools"])
            for sample in samples
            for document in [documents[sample.example_id]]
            for call in _calls(document, sample.output)
        ]
        return ConstrainedAnswers(
            answers=sum(grammar is not None for grammar in self._grammars.values()),
            free=dict(self._free),
            calls=len(fitting),
            fitting=sum(fitting),
        )

    def _write(self, document: Document) -> str | None:
        if self._labels is not None:
            return self._labels
        tools: list[dict[str, Json]] = json.loads(document["tools"])
        try:
            return answer_grammar.of_request(cast("Dialect", document["form"]), tools)
        except UnsupportedSchemaError as error:
            self.note(str(error))
            return None


def _calls(document: Document, output: str) -> tuple[Call, ...]:
    form, offers_tools = cast("Dialect", document["form"]), bool(json.loads(document["tools"]))
    return dialects.read_answer(form, output, offers_tools=offers_tools).calls
