"""The steps: what each checks or measures on CUDA, in the order of their worth."""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import typer

Figures: TypeAlias = Mapping[str, float | str]
"""What a step prints: numbers, or sentences."""


@dataclass(frozen=True)
class Step:
    """One step, run in a process of its own.

    ``limit`` are the seconds after which it is killed; ``needs`` the packages without which it is
    left out.
    """

    name: str
    purpose: str
    limit: int
    needs: tuple[str, ...]
    run: Callable[[Path, bool], Figures]


TRAINING = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets")
EVALUATION = (*TRAINING, "lm_eval")


def machine(folder: Path, rehearsal: bool) -> Figures:
    """Name the card and the versions, and measure its bf16 products and its copies."""
    import torch

    from components.models import device
    from tests.cuda import models

    figures: dict[str, float | str] = {
        "card": torch.cuda.get_device_name() if models.DEVICE == "cuda" else device.device_name(),
        "python": platform.python_version(),
        "computing": str(device.best_computing()),
    }
    for package in (*TRAINING, "accelerate", "lm_eval", "flash_attn", device.LIGER, "vllm"):
        figures[package] = _version(package)
    size = 512 if rehearsal else 8192
    left, right = torch.randn(2, size, size, device=models.DEVICE, dtype=torch.bfloat16)
    figures["bf16 TFLOP/s"] = 2 * size**3 / _seconds(lambda: left @ right) / 1e12
    return figures


def gpu_tests(folder: Path, rehearsal: bool) -> Figures:
    """Run the project's tests that are marked ``gpu``."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if rehearsal else []
    ended = subprocess.run(
        [*command, "tests/components/train", "tests/components/extensions/embedded"],
        capture_output=True,
        text=True,
        check=False,
    )
    typer.echo(ended.stdout + ended.stderr)
    if ended.returncode:
        raise RuntimeError(f"pytest ended with {ended.returncode}; its output is in the log")
    return {"pytest": ended.stdout.strip().splitlines()[-1]}


def losses(folder: Path, rehearsal: bool) -> Figures:
    """Train a small model twice on this device and once on the CPU, and compare every step."""
    base, snapshot = _small(folder)
    curves = [
        _curve(base, snapshot, folder / name, on_cpu=name == "cpu") for name in ("a", "b", "cpu")
    ]
    ours, again, cpu = curves
    return {
        "steps": len(ours),
        "largest difference of two runs here": _largest(ours, again),
        "largest relative difference from the CPU": _largest(ours, cpu, relative=True),
        "adapters of two runs are equal to the byte": str(
            (folder / "a/adapter_model.safetensors").read_bytes()
            == (folder / "b/adapter_model.safetensors").read_bytes()
        ),
    }


def resume(folder: Path, rehearsal: bool) -> Figures:
    """Kill a training with -9 after a checkpoint, and compare its end with an undisturbed one's."""
    from safetensors.torch import load_file

    base, snapshot = _small(folder)
    _curve(base, snapshot, folder / "whole")
    process = _training(base, snapshot, folder / "cut")
    while not [*(folder / "cut/checkpoints").glob("checkpoint-*/trainer_state.json")]:
        if process.poll() is not None:
            raise RuntimeError("the training ended before its first checkpoint")
        time.sleep(0.05)
    process.kill()
    process.wait()
    _curve(base, snapshot, folder / "cut")
    whole, cut = (load_file(folder / n / "adapter_model.safetensors") for n in ("whole", "cut"))
    difference = max((whole[name] - cut[name]).abs().max().item() for name in whole)
    return {"largest difference of a resumed adapter's weights": difference}


def race_of(shape: str) -> Callable[[Path, bool], Figures]:
    """Return the race between our training and TRL's at a shape."""

    def race(folder: Path, rehearsal: bool) -> Figures:
        from tests.cuda import models
        from tests.cuda import race as racing

        chosen = models.SHAPES["rehearsal" if rehearsal else shape]
        snapshot = models.write_rows(folder, 48 if rehearsal else 256, validation=32)
        peak = 1e12 * float(machine(folder, rehearsal)["bf16 TFLOP/s"])
        figures: dict[str, float | str] = {}
        paces: dict[str, racing.Pace] = {}

        def note(name: str, pace: racing.Pace) -> None:
            paces[name] = pace
            figures[name] = (
                f"{pace.rate:,.0f} tokens/s, {pace.peak_gb:.2f} GB, loss {pace.loss:.4f}, "
                f"{pace.utilization(chosen, peak):.0%} of the card's bf16 products"
            )
            typer.echo(f"{name}: {figures[name]}")

        note("ours", racing.train_ours(chosen, snapshot))
        for name, flags in racing.CONTENDERS.items():
            if missing := racing.missing_package(flags):
                figures[name] = f"left out: {missing} is not installed"
                continue
            try:
                note(name, racing.train_trl(chosen, snapshot, **flags))
            except Exception as error:  # noqa: BLE001 - the others' figures are worth having
                figures[name] = f"failed: {type(error).__name__}: {error}"[:200]
        rivals = {name: pace for name, pace in paces.items() if name != "ours"}
        if rivals:
            best = max(rivals, key=lambda name: rivals[name].rate)
            figures["best of TRL"] = best
            figures["times its tokens/s"] = paces["ours"].rate / rivals[best].rate
            figures["its loss less ours"] = rivals[best].loss - paces["ours"].loss
            if rivals[best].peak_gb:
                figures["times its memory"] = paces["ours"].peak_gb / rivals[best].peak_gb
        return figures

    return race


def layouts(folder: Path, rehearsal: bool) -> Figures:
    """Measure how long a packed sequence may be: the limit of 2,048 tokens was chosen on CPUs."""
    from tests.cuda import models, race

    shape = models.SHAPES["rehearsal" if rehearsal else "1b"]
    snapshot = models.write_rows(folder, 32 if rehearsal else 128, validation=1)
    sizes = (512, 2048) if rehearsal else (1, 1024, 2048, 4096, 8192, 16384)
    figures: dict[str, float | str] = {}
    for size in sizes:
        pace = race.pace_of_layout(shape, snapshot, size)
        name = f"up to {size:,} tokens" if size > 1 else "one row at a time"
        figures[name] = f"{pace.rate:,.0f} tokens/s, {pace.peak_gb:.2f} GB"
    return figures


def memory(folder: Path, rehearsal: bool) -> Figures:
    """Compare the planned memory with the measured one."""
    from components.train.plan import planner
    from components.train.plan.planner import Worker
    from tests.cuda import models, race

    figures: dict[str, float | str] = {}
    for name in ("rehearsal",) if rehearsal else ("1b", "4b", "8b"):
        place = folder / name
        place.mkdir()
        snapshot = models.write_rows(place, 32, validation=1)
        base = models.write_config(models.SHAPES[name], place / "base")
        worker = Worker(gpu_memory_gb=80.0)
        plan = planner.make_plan(snapshot, base, race.RECIPE, worker, report=lambda _: None)
        measured = race.train_ours(models.SHAPES[name], snapshot).peak_gb
        planned = plan.asked.memory.peak / 1e9
        figures[name] = f"planned {planned:.2f} GB, measured {measured:.2f} GB" + (
            f", {planned / measured - 1:+.1%}" if measured else ""
        )
    return figures


def out_of_memory(folder: Path, rehearsal: bool) -> Figures:
    """Leave a training too little memory for its batches: it must halve them and go on."""
    import torch

    from tests.cuda import models, race

    shape = models.SHAPES["rehearsal" if rehearsal else "1b"]
    snapshot = models.write_rows(folder, 32, validation=8)
    roomy = race.train_ours(shape, snapshot)
    if models.DEVICE == "cpu":
        return {"left out": "without CUDA no memory can be taken away"}
    lasting = 0.4 * roomy.peak_gb  # of the base and the adapter, by far the smaller part
    room = lasting + 0.5 * (roomy.peak_gb - lasting)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room * 1e9 / total)
    tight = race.train_ours(shape, snapshot)
    return {
        "roomy": f"{roomy.peak_gb:.2f} GB, loss {roomy.loss:.4f}",
        "tight": f"{tight.peak_gb:.2f} GB of {room:.2f}, loss {tight.loss:.4f}",
    }


def attention(folder: Path, rehearsal: bool) -> Figures:
    """Compare a dense mask for packed rows with varlen flash attention and with flex attention."""
    from tests.cuda import attention as ways
    from tests.cuda import models

    shape = models.SHAPES["rehearsal" if rehearsal else "1b"]
    figures: dict[str, float | str] = {}
    for rows, shared in (("rows of their own", 0), ("rows that share a prefix", 400)):
        place = folder / str(shared)
        place.mkdir()
        count = 32 if rehearsal else 128
        snapshot = models.write_rows(place, count, longest=400 if rehearsal else 900, shared=shared)
        paces = ways.paces(shape, snapshot)
        ours = paces[ways.DENSE]
        for name, pace in paces.items():
            figures[f"{rows}: {name}"] = (
                f"{pace.rate:,.0f} tokens/s, {pace.rate / ours.rate:.2f} of ours, "
                f"{pace.peak_gb:.2f} GB, loss {pace.loss:.4f}"
            )
    return figures


def stock_lm_eval(folder: Path, rehearsal: bool) -> Figures:
    """Answer as stock lm-eval does, in other batches, and our ways: time, and what differs."""
    from tests.cuda import answering, models

    base = answering.write_base(models.SHAPES["rehearsal" if rehearsal else "1b"], folder / "base")
    snapshot = answering.write_requests(folder, 20 if rehearsal else 128)
    answered = answering.answer_by_all(base, snapshot, 8 if rehearsal else 64)
    stock = answered[answering.STOCK]
    figures: dict[str, float | str] = {"requests": len(stock.texts)}
    for name, way in answered.items():
        figures[name] = (
            f"written in {way.write_seconds:.2f} s ({stock.write_seconds / way.write_seconds:.2f} "
            f"times as fast), labels in {way.choose_seconds:.2f} s "
            f"({stock.choose_seconds / way.choose_seconds:.2f}); {way.differing(stock)} texts "
            f"differ, log-probabilities by up to {way.largest(stock):.2g}"
        )
    if answering.TREE not in answered:
        figures[answering.TREE] = "left out: the base computes otherwise on a tree here"
    noise = answered[answering.AGAIN]
    ours = answered[answering.OURS]
    figures["ours is equal within the noise"] = str(
        ours.differing(stock) <= noise.differing(stock)
        and ours.largest(stock) <= max(noise.largest(stock), 1e-3)
    )
    return figures


def vllm(folder: Path, rehearsal: bool) -> Figures:
    """Evaluate in vLLM and in transformers, and run the tests of both of vLLM's places."""
    from components import scorecard
    from tests.components.evaluate.conftest import build_adapter
    from tests.cuda import answering, models

    base = answering.write_base(models.SHAPES["rehearsal" if rehearsal else "1b"], folder / "base")
    snapshot = answering.write_requests(folder, 20 if rehearsal else 128)
    adapter = build_adapter(base, folder / "key-challenger", 0)
    figures: dict[str, float | str] = {}
    texts: dict[str, list[str]] = {}
    for engine in ("transformers", "vllm"):
        began = time.perf_counter()
        cards = _evaluated(base, snapshot, adapter, folder / engine, engine)
        figures[f"{engine}, base and adapter, seconds"] = time.perf_counter() - began
        samples = [sample for card in cards for sample in scorecard.read(card).samples]
        texts[engine] = [sample.output for sample in samples]
        figures[f"{engine}, scores that changed in other batches"] = sum(
            sample.scores != sample.rescored for sample in samples
        )
    pairs = zip(texts["transformers"], texts["vllm"], strict=True)
    figures["answers that differ between the two"] = sum(a != b for a, b in pairs)
    figures["answers"] = len(texts["vllm"])
    places = (
        "components/evaluate/engines/test_vllm_engine.py",
        "components/serve/test_vllm_swap.py",
    )
    for place in places:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "vllm", "-k", "not hundred"]
        command += ["-p", "no:cacheprovider", *(["--collect-only"] if rehearsal else [])]
        ended = subprocess.run(
            [*command, f"tests/{place}"], capture_output=True, text=True, check=False
        )
        typer.echo(ended.stdout + ended.stderr)
        figures[place.rpartition("/")[2]] = (ended.stdout.strip().splitlines() or ["no output"])[-1]
    return figures


def _evaluated(base: Path, snapshot: Path, adapter: Path, root: Path, engine: str) -> list[Path]:
    """Evaluate base and adapter in a job of the project; return their scorecards' folders."""
    from components.evaluate import score_conditions
    from components.evaluate.settings import EvaluationSettings

    settings = EvaluationSettings.model_validate(
        {"engine": engine, "precision": "bf16", "kind": "classification", "max_new_tokens": 16}
    )
    folders = {"base": None, "challenger": adapter}
    spec = {"snapshot": str(snapshot), "base": str(base), "root": str(root), "side": "holdout"}
    spec |= {"models": {name: path and str(path) for name, path in folders.items()}}
    path = root.with_suffix(".json")
    path.write_text(json.dumps({**spec, "settings": settings.model_dump(mode="json")}))
    command = [sys.executable, "-m", "flows.jobs.launch", "evaluate", str(path)]
    environment = {**os.environ, "FLYWHEEL_HOME": str(root.parent / "home")}
    subprocess.run(command, check=True, env=environment)
    cards = score_conditions.folders(snapshot, base, folders, root, settings)
    return [cards[name]["holdout"] for name in folders]


def evaluation(folder: Path, rehearsal: bool) -> Figures:
    """Evaluate twice, and in other batches: how many answers change by their company alone."""
    from components import scorecard
    from components.evaluate import harness
    from components.evaluate.settings import EvaluationSettings
    from tests.support import holdouts, tiny

    base = tiny.build(folder / "base")
    cases = [holdouts.Case(f"Weather in {'o' * n}?", holdouts.CASES[0].answer) for n in range(64)]
    snapshot = holdouts.build(folder, cases)
    answers: dict[str, list[str]] = {}
    seconds: dict[str, float] = {}
    changed: dict[str, int] = {}
    for name, size in (("16", 16), ("16 again", 16), ("1", 1), ("7", 7)):
        settings = EvaluationSettings(precision="bf16", batch_size=size, max_new_tokens=32)
        began = time.perf_counter()
        cards = harness.evaluate(
            snapshot,
            base,
            {"base": None},
            folder / name,
            settings,
            report=lambda _: None,
            now=datetime.now(UTC),
        )
        seconds[name] = time.perf_counter() - began
        card = scorecard.read(cards["base"][scorecard.HOLDOUT])
        answers[name] = [sample.output for sample in card.samples]
        changed[name] = sum(sample.scores != sample.rescored for sample in card.samples)
    figures: dict[str, float | str] = {
        f"answers that differ with batches of {name}": sum(
            a != b for a, b in zip(answers["16"], texts, strict=True)
        )
        for name, texts in answers.items()
        if name != "16"
    }
    return figures | {
        "answers": len(cases),
        "scores that the scorecard's own second answers changed": changed["16"],
        "seconds with batches of 16, asked twice": seconds["16 again"],
    }


def shards(folder: Path, rehearsal: bool) -> Figures:
    """Train with two processes over NCCL, the base whole and split (FSDP2 over NF4)."""
    import torch

    if torch.cuda.device_count() < 2 and not rehearsal:
        return {"left out": "NCCL takes one process on each GPU, and there is one GPU"}
    base, snapshot = _small(folder)
    figures: dict[str, float | str] = {}
    for name, fsdp in (("whole", None), ("split", "full_shard")):
        _curve(base, snapshot, folder / f"{name}-one")
        _curve(base, snapshot, folder / f"{name}-two", processes=2, fsdp=fsdp)
        one, two = (_read_curve(folder / f"{name}-{n}") for n in ("one", "two"))
        figures[f"largest relative difference of losses, {name}"] = _largest(
            one, two, relative=True
        )
    return figures


STEPS = (
    Step("machine", machine.__doc__ or "", 60, ("torch",), machine),
    Step("gpu-tests", gpu_tests.__doc__ or "", 240, (*TRAINING, "pytest"), gpu_tests),
    Step("race-1b", "Race our training with TRL's: Llama-3.2-1B.", 240, TRAINING, race_of("1b")),
    Step("race-8b", "Race our training with TRL's: Llama-3-8B.", 420, TRAINING, race_of("8b")),
    Step("losses", losses.__doc__ or "", 120, TRAINING, losses),
    Step("resume", resume.__doc__ or "", 120, TRAINING, resume),
    Step("layouts", layouts.__doc__ or "", 180, TRAINING, layouts),
    Step("memory", memory.__doc__ or "", 240, TRAINING, memory),
    Step("out-of-memory", out_of_memory.__doc__ or "", 120, TRAINING, out_of_memory),
    Step("evaluation", evaluation.__doc__ or "", 180, EVALUATION, evaluation),
    Step("stock-lm-eval", stock_lm_eval.__doc__ or "", 240, EVALUATION, stock_lm_eval),
    Step("attention", attention.__doc__ or "", 180, TRAINING, attention),
    Step("vllm", vllm.__doc__ or "", 480, (*EVALUATION, "vllm", "pytest"), vllm),
    Step("race-4b", "Race our training with TRL's: Qwen3-4B.", 300, TRAINING, race_of("4b")),
    Step("shards", shards.__doc__ or "", 180, TRAINING, shards),
)


def _small(folder: Path) -> tuple[Path, Path]:
    from components.store import manifest
    from tests.cuda import models
    from tests.support import tiny

    place = folder / "rows"
    place.mkdir()
    snapshot = models.write_rows(place, 48, longest=400)
    # A job trains on finished snapshots only.
    manifest.write(snapshot, kind="snapshot", now=datetime.now(UTC), body={})
    return tiny.build(folder / "base"), snapshot


def _training(
    base: Path,
    snapshot: Path,
    folder: Path,
    *,
    on_cpu: bool = False,
    processes: int = 1,
    fsdp: str | None = None,
) -> subprocess.Popen[str]:
    """Start a job of the project that trains; its losses go to ``<folder>.losses``."""
    recipe = {"per_device_train_batch_size": 4, "save_steps": 4, "learning_rate": 1e-3}
    recipe |= {"num_train_epochs": 2, "fsdp": fsdp}
    spec = {"snapshot": str(snapshot), "base": str(base), "folder": str(folder)}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({**spec, "warm_start": None, "recipe": recipe}))
    environment = {**os.environ, "FLYWHEEL_HOME": str(folder.parent / "home")}
    environment |= {"FLYWHEEL_PROCESSES": str(processes)}
    if on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.jobs.launch", "train", str(path)],
        stdout=folder.with_suffix(".losses").open("w"),
        text=True,
        env=environment,
    )


def _curve(base: Path, snapshot: Path, folder: Path, **how: object) -> list[float]:
    process = _training(base, snapshot, folder, **how)  # pyright: ignore[reportArgumentType]
    if process.wait():
        raise RuntimeError(f"the training of {folder.name} ended with {process.returncode}")
    return _read_curve(folder)


def _read_curve(folder: Path) -> list[float]:
    lines = folder.with_suffix(".losses").read_text().splitlines()
    reports = [json.loads(line) for line in lines if line.startswith('{"stage": "train"')]
    return [report["figures"]["loss"] for report in reports if "loss" in report["figures"]]


def _largest(left: list[float], right: list[float], *, relative: bool = False) -> float:
    pairs = zip(left, right, strict=True)
    return max(abs(a - b) / (abs(b) if relative else 1.0) for a, b in pairs)


def _seconds(work: Callable[[], object]) -> float:
    """Return the median seconds of ten runs after three."""
    import torch

    times: list[float] = []
    for _ in range(13):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    if importlib.util.find_spec(package) is None:
        return "not installed"
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
