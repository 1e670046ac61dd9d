"""vLLM answers like transformers, for the base and each adapter, in texts and likelihoods.

make test-vllm
"""

import json
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from components import scorecard
from components.evaluate import harness
from components.evaluate.engines import adapter_checks
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.engines.protocol import Engine, EngineError
from components.evaluate.settings import EvaluationSettings
from components.gate import comparability
from components.scorecard import HOLDOUT, Scorecard, ScorecardFolders
from components.store.manifest import ScorecardManifest
from tests.components.evaluate.conftest import finish
from tests.support import guard_files, holdouts, tiny
from tests.support.holdouts import NOW
from tests.support.model_answers import FP32, scored, written

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

PAIRS = [
    ("The sky is", " blue"),
    ("The sky is", " green, as everybody knows"),
    ("The sky is blue. The sea is", " deep"),
    ("", "words without a context"),
]
PROMPTS = ["Weather in Rome?", "Weather in New York?", "Weather in Rome?", "Write a poem"]


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


@dataclass(frozen=True)
class Engines:
    """The tiny base in both engines, and its adapters."""

    transformers: Engine
    vllm: Engine
    adapters: dict[str, Path]

    def said(self, role: str | None) -> list[list[Any]]:
        """Return each engine's likelihoods and texts with an adapter."""
        answers: list[list[Any]] = []
        for engine in (self.transformers, self.vllm):
            with (
                engine.use_adapter(self.adapters[role] if role else None) as worn,
                worn.answering("asked", lambda _: None) as lm,
            ):
                likely: Any = lm.loglikelihood(scored(PAIRS))
                plain = lm.generate_until(written(PROMPTS, {"max_gen_toks": 12}))
                cut = lm.generate_until(written(PROMPTS, {"max_gen_toks": 12, "until": ["e", "o"]}))
                answers.append([likely, plain, cut])
        return answers


@pytest.fixture(scope="module")
def both(
    tiny_base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Engines]:
    folder = tmp_path_factory.mktemp("faint")
    faint = Path(shutil.copytree(adapters["challenger"], folder / "key-faint"))
    weights = load_file(faint / adapter_checks.WEIGHTS_FILE)
    save_file(
        {name: tensor * 1e-30 for name, tensor in weights.items()},
        faint / adapter_checks.WEIGHTS_FILE,
    )
    worn = {**adapters, "faint": finish(tiny_base, faint)}
    settings = EvaluationSettings(precision="fp32", batch_size=3)
    vllm = settings.model_copy(update={"engine": "vllm"})
    paths = list(worn.values())
    with (
        harness.load_engine(tiny_base, settings, paths) as engine,
        harness.load_engine(tiny_base, vllm, paths) as other,
    ):
        yield Engines(engine, other, worn)


@pytest.mark.parametrize("role", [None, "challenger", "champion"])
def test_its_answers_equal_those_of_transformers(both: Engines, role: str | None):
    (likely, *texts), (likely_too, *texts_too) = both.said(role)
    assert texts_too == texts
    assert [greedy for _, greedy in likely_too] == [greedy for _, greedy in likely]
    sums = [[likelihood for likelihood, _ in row] for row in (likely, likely_too)]
    assert sums[1] == pytest.approx(sums[0], abs=FP32)


def test_each_adapter_and_the_base_have_their_own_answers(both: Engines):
    answers = [both.said(role)[1] for role in (None, "challenger", "champion", None)]
    assert answers[0] == answers[3]
    assert all(answers[a] != answers[b] for a, b in ((0, 1), (0, 2), (1, 2)))


def test_an_adapter_without_effect_is_reported(both: Engines):
    with (
        pytest.raises(AdapterNotAppliedError, match="key-faint: with it attached, vLLM's log-prob"),
        both.vllm.use_adapter(both.adapters["faint"]),
    ):
        pass


def test_a_single_request_is_timed(both: Engines):
    with both.vllm.use_adapter(None) as worn:
        first_token, tokens_per_second = worn.alone(PROMPTS[0])
    assert 0 < first_token < 10
    assert tokens_per_second > 0


def test_answers_are_not_sampled(both: Engines):
    with (
        both.vllm.use_adapter(None) as worn,
        worn.answering("asked", lambda _: None) as lm,
        pytest.raises(ValueError, match="answered greedily"),
    ):
        lm.generate_until(written(PROMPTS, {"do_sample": True, "temperature": 1.0}))


@pytest.fixture(scope="module")
def cards(
    tiny_base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ScorecardFolders]:
    """Measure in both engines, on a 4-bit base with a default repetition penalty."""
    folder = tmp_path_factory.mktemp("measured")
    base = shipped_with(tiny_base, folder / "base", repetition_penalty=1.3)
    settings = EvaluationSettings(
        precision="nf4",
        batch_size=2,
        max_new_tokens=8,
        tasks=(guard_files.sums(folder), guard_files.written(folder, filter="as-it-is")),
    )
    snapshot = holdouts.build(folder)
    models: dict[str, Path | None] = {"base": None} | {
        role: finish(base, Path(shutil.copytree(adapter, folder / adapter.name)))
        for role, adapter in adapters.items()
    }

    def measured(engine: str) -> ScorecardFolders:
        configured = settings.model_copy(update={"engine": engine})
        return harness.evaluate(
            snapshot, base, models, folder / "cards", configured, report=lambda _: None, now=NOW
        )

    return {engine: measured(engine) for engine in ("transformers", "vllm")}


def shipped_with(base: Path, folder: Path, **settings: object) -> Path:
    """Copy a base, with its own generation settings."""
    shutil.copytree(base, folder)
    defaults = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(defaults | settings))
    return folder


@pytest.mark.parametrize("task", [HOLDOUT, "sums", "written"])
@pytest.mark.parametrize("model", ["base", "challenger", "champion"])
def test_scorecards_of_both_engines_differ_only_in_their_conditions(
    cards: dict[str, ScorecardFolders], model: str, task: str
):
    plain, other = (scorecard.read(cards[engine][model][task]) for engine in cards)
    assert other.samples == plain.samples
    assert other.scores == plain.scores
    assert "vllm" in libraries(other)
    assert "vllm" not in libraries(plain)
    assert any("'engine': 'vllm'" in reason for reason in comparability.incomparable(other, plain))


def libraries(card: Scorecard) -> dict[str, Any]:
    recorded = card.conditions["libraries"]
    assert isinstance(recorded, dict)
    return recorded


def test_its_scorecard_has_its_speed(cards: dict[str, ScorecardFolders]):
    measured = ScorecardManifest.read(cards["vllm"]["champion"][HOLDOUT]).speed
    assert measured is not None
    assert measured.requests == 3
    assert measured.seconds > 0
    assert measured.first_token is not None


def test_unsupported_settings_of_a_base_are_reported(tiny_base: Path, tmp_path: Path):
    base = shipped_with(tiny_base, tmp_path / "base", no_repeat_ngram_size=3)
    settings = EvaluationSettings(precision="fp32", engine="vllm")
    with (
        pytest.raises(EngineError, match=r"generation_config\.json has no_repeat_ngram_size"),
        harness.load_engine(base, settings, []),
    ):
        pass


def test_an_unsupported_adapter_is_reported(
    tiny_base: Path, adapters: dict[str, Path], tmp_path: Path
):
    dora = Path(shutil.copytree(adapters["champion"], tmp_path / "key-dora"))
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    settings = EvaluationSettings(precision="fp32", engine="vllm")
    with (
        pytest.raises(
            AdapterNotAppliedError, match="key-dora in vLLM: use_dora: vLLM takes no DoRA;"
        ),
        harness.load_engine(tiny_base, settings, [finish(tiny_base, dora)]),
    ):
        pass


def test_a_window_that_keys_and_values_have_no_memory_for_is_cut(tmp_path: Path):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=32,
        num_attention_heads=16,
        head_dim=128,
        max_position_embeddings=2**18,  # 137 GB
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    settings = EvaluationSettings(precision="fp32", engine="vllm", batch_size=2)
    with (
        harness.load_engine(tmp_path, settings, []) as engine,
        engine.use_adapter(None) as model,
        model.answering("asked", lambda _: None) as lm,
    ):
        (answer,) = lm.generate_until(written(PROMPTS[:1], {"max_gen_toks": 2}))
    assert answer
    assert 1024 < engine.length < 2**18
