"""Put requests to our model and to stock lm-eval's, and compare what they say."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from components.evaluate.engines.transformers_engine import CachedHFLM
from components.extensions.cpu.prefix_engine import PrefixReader
from components.schema import Progress

FP32 = 1e-3
"""How far apart two sums of log-probabilities may be that were computed in another order."""


class Both:
    """A model as lm-eval's HFLM asks it and as ours does, which ``said`` how far it was."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 3) -> None:
        self.said: list[Progress] = []
        stock: Any = HFLM  # lm-eval's decorator hides its signature from pyright
        self.stock: Any = stock(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        reader = PrefixReader(model)
        self.ours: Any = CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
            model,
            tokenizer,
            batch_size,
            reader=reader if reader.fits() else None,
            stage="base",
            report=self.said.append,
        )

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Score continuations, and see that stock finds each as likely, and as greedy."""
        stock = self.stock.loglikelihood(scored(pairs), disable_tqdm=True)
        ours = self.ours.loglikelihood(scored(pairs))
        for one, other in zip(stock, ours, strict=True):
            assert abs(one[0] - other[0]) < FP32
            assert one[1] == other[1]
        return ours

    def write(self, prompts: Sequence[str], **settings: object) -> list[str]:
        """Answer prompts, and see that stock answers each in the same words."""
        stock = self.stock.generate_until(written(prompts, settings), disable_tqdm=True)
        ours = self.ours.generate_until(written(prompts, settings))
        assert ours == stock
        return ours


def scored(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    """Ask how likely each continuation of a context is."""
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def written(prompts: Sequence[str], settings: dict[str, object]) -> list[Instance]:
    """Ask for a greedy answer to each prompt."""
    return [
        Instance("generate_until", {}, (prompt, {"until": [], "do_sample": False} | settings), 0)
        for prompt in prompts
    ]
