"""A decision counts only while the champion is the one that the evidence was measured against."""

from pathlib import Path

import pytest

from components import base, rendering
from components.gate.evidence import Evidence, Subject
from components.gate.judgement import Judgement
from components.register import aliases, registry, tracking
from components.register.logged import Served
from flows import promote


def crown(name: str, adapter: Path, base_model: Path, evidence: str) -> None:
    version = registry.register(
        name,
        tracking.open_run(name, adapter.name, params={}, tags={}),
        adapter,
        served=Served(
            base=str(base_model),
            base_hash=base.content_hash(base_model),
            prompt_template=rendering.template_hash(base_model),
            precision="nf4",
            max_new_tokens=8,
        ),
        tags={registry.EVIDENCE_TAG: evidence, registry.ADAPTER_TAG: adapter.name},
    )
    aliases.put(name, aliases.CHAMPION, version.number)


def against(opponent: str, workload: str, digest: str = "e2") -> Evidence:
    subject = Subject(workload, "s1", "v1", "b1", "a2", opponent, "c1", "o1")
    return Evidence(Path(digest), subject, Judgement("pass", ("better",), "correct_name"))


def test_evidence_against_the_base_is_fresh_until_there_is_a_champion(
    adapter: Path, base_model: Path
) -> None:
    promote.require_fresh(against("base", "fresh"))
    crown("fresh", adapter, base_model, "e1")
    with pytest.raises(promote.StaleEvidenceError, match="the champion is now version 1"):
        promote.require_fresh(against("base", "fresh"))
    promote.require_fresh(against("1", "fresh"))


def test_a_promotion_that_was_killed_after_crowning_may_end(
    adapter: Path, base_model: Path
) -> None:
    crown("crowned", adapter, base_model, "e2")
    promote.require_fresh(against("base", "crowned", digest="e2"))
