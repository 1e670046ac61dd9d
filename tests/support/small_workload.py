"""A workload that a tiny model learns in seconds: requests that no tool fits, and a base that never
sees it.

The base is trained here to begin a call whatever it is asked, so it never abstains; an adapter
learns to. That is enough for a real gate to pass, on a real stack, without a download.
"""

import json
from pathlib import Path

from tests.support import tiny

WORKLOAD = "small"
REQUESTS, SAVE_STEPS = 48, 2
REFUSAL = "none"
YAML = """\
workload: %(workload)s
base: base
note: A tiny model on made-up requests.
sources: {logs: [logs/*.jsonl], feedback: [feedback/*.jsonl]}
curate: {holdout_share: 0.4, validation_share: 0}
train:
  learning_rate: 0.02
  num_train_epochs: %(epochs)d
  per_device_train_batch_size: 8
  save_steps: %(save_steps)d
evaluate: {batch_size: 32, max_new_tokens: 12}
gate: {min_documents: 8, floor: 0.5}
"""


def write(folder: Path, workload: str = WORKLOAD, epochs: int = 6) -> Path:
    """Write base (unless it is there), logs, feedback and the workload file; give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        stubborn_base(folder / "base")
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "feedback").mkdir(exist_ok=True)
    add_log(folder, 0, REQUESTS, workload)
    votes = [vote(number, workload) for number in range(0, REQUESTS, 8)]
    (folder / "feedback/votes.jsonl").write_text("".join(json.dumps(v) + "\n" for v in votes))
    config = folder / f"{workload}.yaml"
    config.write_text(YAML % {"workload": workload, "epochs": epochs, "save_steps": SAVE_STEPS})
    return config


def add_log(folder: Path, first: int, count: int, workload: str = WORKLOAD) -> Path:
    """Write one log file of ``count`` requests, each offering a tool of its own."""
    path = folder / "logs" / f"from-{first}.jsonl"
    lines = [json.dumps(interaction(number, workload)) for number in range(first, first + count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def name_people(folder: Path, count: int) -> None:
    """Say in the first log whose each request is: one of ``count`` people's, ``person-0-zq`` on."""
    log = folder / "logs/from-0.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    named = [row | {"user_id": f"person-{n % count}-zq"} for n, row in enumerate(rows)]
    log.write_text("".join(json.dumps(row) + "\n" for row in named))


def stubborn_base(folder: Path) -> Path:
    """Train the tiny model, all of it, to answer anything with the beginning of a call."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny.build(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").mul_(
            20
        )  # logits as wide as a real model's
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        text = f"<|im_start|>user\n{'request ' * (1 + step % 7)}{step}<|im_end|>\n"
        head = tokenizer(f"{text}<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
        tail = tokenizer('{"name"<|im_end|>', add_special_tokens=False)["input_ids"]
        ids = torch.tensor([head + tail])
        labels = torch.tensor([[-100] * len(head) + tail])
        torch.autograd.backward(model(input_ids=ids, labels=labels).loss)
        optimizer.step()
        optimizer.zero_grad()
    model.bfloat16()
    model.save_pretrained(folder)
    return folder


def interaction(number: int, workload: str) -> dict[str, object]:
    """Make a logged request that offers a tool of its own, which does not fit."""
    tool = {"name": f"tool_{number}", "description": "Not for this.", "parameters": {}}
    return {
        "timestamp": 1_780_000_000 + number,
        "workload_id": workload,
        "client_id": "app",
        "request": {
            "messages": [{"role": "user", "content": f"request {number}"}],
            "tools": [{"type": "function", "function": tool}],
        },
        "response": {
            "id": f"answer-{number}",
            "choices": [{"message": {"role": "assistant", "content": REFUSAL}}],
        },
    }


def vote(number: int, workload: str) -> dict[str, object]:
    """Make the thumb that a person gave to one of the answers."""
    return {
        "timestamp": 1_780_100_000 + number,
        "workload_id": workload,
        "client_id": "app",
        "response_id": f"answer-{number}",
        "actor_id": f"person-{number}",
        "kind": "thumb",
        "value": "up" if number else "down",
    }
