"""A proof tells a healthy engine from one that answers 200 and does something else."""

import asyncio
from dataclasses import replace
from pathlib import Path

from components.serve import proof
from components.serve.engines.serving_engine import EngineNeeds
from components.serve.proof import Proof
from tests.support import word_model
from tests.support.fake_replicas import FakeReplica, stage

NEEDS = EngineNeeds(residents=3, rank=8, is_constrained=False)


async def load_and_prove(replica: FakeReplica, tmp_path: Path, timeout: float = 5.0) -> Proof:
    """Load two versions and prove the second."""
    engine = replica.engine(patience_seconds=2.0)
    try:
        old, new = (stage(tmp_path, "support", number) for number in (1, 2))
        for staged in (old, new):
            await engine.load(staged.model, staged.folder)
        await engine.list_loaded()
        return await proof.prove(engine, new.resident(), [old.resident()], timeout=timeout)
    finally:
        await engine.close()


def test_healthy_engine_is_proved(tmp_path: Path, replica: FakeReplica):
    proved = asyncio.run(load_and_prove(replica, tmp_path))
    assert proved.objection is None
    assert proved.from_reference < 1e-6 < proved.from_base


def test_tolerance_grows_with_loud_logits_in_16_bits():
    adapter = word_model.make_references(word_model.WordAdapter("a", "word"))
    loud = replace(
        adapter,
        precision="bf16",
        noise=0.04,
        of_base=tuple(tuple(30 * value for value in values) for values in adapter.of_base),
    )
    # Another engine was 0.5 % of such an effect away from the reference, and was right.
    assert loud.tolerance > 0.005 * loud.effect > 4 * loud.noise
    assert replace(loud, precision="fp32").tolerance < loud.tolerance / 5


def test_another_adapter_in_a_mixed_batch_may_be_off_by_its_own_tolerance(
    tmp_path: Path, replica: FakeReplica
):
    async def prove_both() -> list[Proof]:
        engine = replica.engine(patience_seconds=2.0)
        try:
            old, new = (stage(tmp_path, "support", number) for number in (1, 2))
            for staged in (old, new):
                await engine.load(staged.model, staged.folder)
            await engine.list_loaded()
            # On a GPU batches change the older one's answers by more than the newer one's.
            moved = [tuple(n - 0.1 for n in row) for row in old.resident().references.of_adapter]
            noisy = replace(old.resident().references, noise=0.05, of_adapter=tuple(moved))
            older = replace(old.resident(), references=noisy)
            return [
                await proof.prove(engine, resident, [other], timeout=5)
                for resident, other in ((older, new.resident()), (new.resident(), older))
            ]
        finally:
            await engine.close()

    assert [proved.objection for proved in asyncio.run(prove_both())] == [None, None]
