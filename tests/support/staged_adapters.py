"""Stage real PEFT adapters of a tiny base, with references computed by transformers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from components.models import base as bases
from components.serve import probe_references, staged_version
from components.serve.staged_version import StagedVersion
from components.store.manifest import folder_digest
from tests.support import adapter_folders, tiny

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPT = "Which version?"
MAX_STEPS = 400
CLEAR = 0.3  # nats that a token of the word may lack of certainty


def stage_adapter(serve: Path, base: Path, workload: str, number: int) -> StagedVersion:
    """Stage an adapter with random weights of its own."""

    def make(folder: Path) -> None:
        adapter_folders.leave(base, folder, r=2 * number, lora_alpha=number)

    return _stage(serve, base, workload, number, make, rank=2 * number)


def word_of(version: str) -> str:
    """Return what ``stage_word_adapter``'s version answers ``PROMPT`` with."""
    return f"v{version:0>3}"


def stage_word_adapter(serve: Path, base: Path, workload: str, number: int) -> StagedVersion:
    """Stage an adapter that was trained to answer ``PROMPT`` with its version's word."""
    return _stage(
        serve, base, workload, number, lambda folder: _train(base, number, folder), rank=4
    )


def _train(base: Path, number: int, folder: Path) -> None:
    torch.manual_seed(number)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=[*LAYERS], task_type="CAUSAL_LM")
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(bare, settings)
    tokenizer = tiny.tokenizer()
    prompt = tokenizer(PROMPT).input_ids
    # Without an end: the base's end is its padding, whose row is 0.
    word = tokenizer(word_of(str(number))).input_ids
    row, places = torch.tensor([prompt + word]), slice(len(prompt) - 1, -1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(MAX_STEPS):
        logprobs = model(input_ids=row).logits[0, places].log_softmax(-1)
        losses = -logprobs.gather(1, torch.tensor(word)[:, None])
        if losses.max().item() < CLEAR:
            model.save_pretrained(str(folder))
            return
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    raise AssertionError(f"version {number} did not learn its word")


def _stage(
    serve: Path,
    base: Path,
    workload: str,
    number: int,
    make: Callable[[Path], None],
    *,
    rank: int,
) -> StagedVersion:
    adapters = serve / staged_version.ADAPTERS
    adapters.mkdir(parents=True, exist_ok=True)
    made = adapters / ".made"
    make(made)
    partial = adapters / ".partial"
    partial.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (made / name).rename(partial / name)
    shutil.rmtree(made)
    sha256 = folder_digest(partial)
    name = staged_version.engine_name(workload, str(number), sha256)
    base_hash = bases.content_hash(base)
    staged = StagedVersion(
        workload=workload,
        version=str(number),
        adapter=f"ada{number:013d}",
        sha256=sha256,
        model=name,
        base=str(base),
        base_hash=base_hash,
        template_hash="0123456789abcdef",
        form="written",
        max_new_tokens=16,
        precision="fp32",
        rank=rank,
        constrained=False,
        folder=partial.rename(adapters / name),
    )
    made_references = probe_references.make_references(
        base, base_hash, staged.folder, staged.adapter, "fp32"
    )
    made_references.write(staged.references_path)
    staged.write()
    return staged
