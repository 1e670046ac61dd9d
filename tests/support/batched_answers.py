"""The continuous batch without a server: requests in, answers out, a step at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.extensions.embedded.answer_text import AnswerText
from components.extensions.embedded.attached_lora import AttachedLora
from components.extensions.embedded.continuous_batch import (
    AnswerRequest,
    ContinuousBatch,
    GeneratedPart,
    RunningAnswer,
)
from components.extensions.embedded.lora_folder import read_adapter
from components.extensions.embedded.sampling import Sampler, SamplingSettings, ScoredToken
from components.extensions.embedded.shared_base import SharedBase
from components.models.constrained import Matcher

GREEDY = SamplingSettings(temperature=0)


@dataclass
class Answer:
    """What came of a request so far."""

    parts: list[GeneratedPart] = field(default_factory=list)
    running: RunningAnswer | None = None

    @property
    def tokens(self) -> list[int]:
        return [token for part in self.parts for token in part.tokens]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def scores(self) -> list[ScoredToken]:
        return [score for part in self.parts for score in part.scores]

    @property
    def prompt_scores(self) -> list[ScoredToken]:
        return [score for part in self.parts for score in part.prompt]

    @property
    def finish(self) -> str | None:
        return self.parts[-1].finish if self.parts else None


class Engine:
    """A batch with adapters by name; the base is ``base``."""

    def __init__(
        self,
        base: SharedBase,
        adapters: Mapping[str, Path],
        *,
        slots: int = 4,
        stored_bytes: int = 1 << 20,
        running_bytes: int = 1 << 30,
    ) -> None:
        self.base = base
        self.batch = ContinuousBatch(
            base, slots=slots, stored_bytes=stored_bytes, running_bytes=running_bytes
        )
        self.adapters: dict[str, AttachedLora | None] = {"base": None}
        for name, folder in adapters.items():
            self.load(name, folder)

    def load(self, name: str, folder: Path) -> None:
        self.adapters[name] = self.base.attach(read_adapter(folder, self.base.linears))

    def start(
        self,
        adapter: str,
        prompt: Sequence[int],
        max_tokens: int = 12,
        *,
        sampling: SamplingSettings = GREEDY,
        matcher: Matcher | None = None,
        ends: Sequence[int] = (),
        stops: Sequence[str] = (),
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        client: str = "",
    ) -> Answer:
        request = AnswerRequest(
            tuple(prompt),
            max_tokens,
            frozenset(ends),
            tuple(stops),
            sampling,
            logprobs,
            prompt_logprobs,
        )
        answer = Answer()
        answer.running = RunningAnswer(
            request,
            self.adapters[adapter],
            matcher,
            answer.parts.append,
            AnswerText(lambda tokens: str(self.base.tokenizer.decode([*tokens])), request.stops),
            Sampler(sampling),
            client,
        )
        self.batch.add(answer.running)
        return answer

    def run(self) -> None:
        while self.batch.has_work:
            self.batch.step()
