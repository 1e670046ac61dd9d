"""A model that knows what it is to answer, for whatever is asked through lm-eval."""

from collections.abc import Callable

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM


class Oracle(LM):
    """Answers each prompt as it is told to, and finds a continuation as likely as it is told."""

    def __init__(
        self,
        write: Callable[[str], str] = str,
        likely: Callable[[str, str], float] = lambda prompt, answer: 0.0,
    ) -> None:
        super().__init__()
        self.write, self.likely = write, likely
        self.prompts: list[str] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        self.prompts += [request.args[0] for request in requests]
        return [self.write(request.args[0]) for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        self.prompts += [request.args[0] for request in requests]
        return [(self.likely(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError
