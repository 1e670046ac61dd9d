"""A CPU trains in the type that it multiplies faster in, unless a person says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.models import cpu_products, device
from components.models.cpu_products import CpuSpeed


@pytest.fixture
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine on which nothing was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cpu_products.VARIABLE)
    cpu_products.speed.cache_clear()
    yield tmp_path
    cpu_products.speed.cache_clear()


def test_the_faster_type_is_chosen_and_bf16_where_they_are_alike():
    assert CpuSpeed(bf16=1.6, fp32=183).faster == "fp32"
    assert CpuSpeed(bf16=400, fp32=90).faster == "bf16"
    assert CpuSpeed(bf16=90, fp32=90).faster == "bf16"


def test_it_is_measured_once(unmeasured: Path):
    first = cpu_products.describe()
    (file,) = unmeasured.rglob("*.json")
    written = file.stat()
    cpu_products.speed.cache_clear()
    assert cpu_products.describe() == first
    assert file.stat() == written
    assert first.startswith(f"{cpu_products.cpu_type()} (bf16 ")


def test_what_was_half_written_is_measured_again(unmeasured: Path):
    first = cpu_products.speed()
    (file,) = unmeasured.rglob("*.json")
    file.write_text('{"bf16": ')
    cpu_products.speed.cache_clear()
    assert cpu_products.speed().faster == first.faster


def test_a_person_overrides_it_and_a_manifest_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(cpu_products.VARIABLE, "fp32")
    assert device.best_computing().products == "fp32"
    assert device.describe_environment()["products"] == "fp32 (FLYWHEEL_CPU_TYPE)"
    monkeypatch.setenv(cpu_products.VARIABLE, "fp16")
    with pytest.raises(ValueError, match="FLYWHEEL_CPU_TYPE is 'fp16', expected bf16 or fp32"):
        cpu_products.cpu_type()


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an instruction set of x86")
def test_a_processor_without_16_bit_arithmetic_multiplies_in_fp32(unmeasured: Path):
    code = "from components.models import cpu_products; print(cpu_products.describe())"
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    told = subprocess.run([sys.executable, "-c", code], env=old, capture_output=True, text=True)
    assert told.stdout.startswith("fp32 (bf16 "), told.stderr
