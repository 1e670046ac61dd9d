"""The conditions have the GPU that computes, and its compute type."""

import os
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from components.chat import chat_templates
from components.evaluate import score_conditions
from components.models import cpu_products, device
from components.models.device import Graphics
from components.schema import Precision
from tests.support import templates, tiny

H100, T4 = Graphics("NVIDIA H100 80GB HBM3", (9, 0)), Graphics("Tesla T4", (7, 5))


@pytest.mark.parametrize(
    ("gpus", "precision", "named", "computed_in"),
    [
        pytest.param([H100], "nf4", H100.name, "bf16", id="4-bit"),
        pytest.param([T4], "nf4", T4.name, "fp16", id="4-bit-on-an-older-gpu"),
        pytest.param([T4], "bf16", T4.name, "bf16", id="bf16-as-it-was-asked"),
        pytest.param([H100], "fp32", H100.name, "fp32", id="fp32"),
        pytest.param([H100, H100], "nf4", H100.name, "bf16", id="two-of-a-kind"),
        pytest.param([T4, H100], "fp4", f"{H100.name}, {T4.name}", "fp16", id="the-oldest-decides"),
        pytest.param(
            [Graphics("GPU", None)], "nf4", "GPU", "bf16 or fp16", id="nobody-says-how-old"
        ),
    ],
)
def test_the_conditions_have_the_gpus_model_and_compute_type(
    gpus: list[Graphics], precision: Precision, named: str, computed_in: str
):
    conditions = score_conditions.compute_name(gpus, precision)
    assert conditions == {"machine": named, "computed_in": computed_in}


@pytest.mark.parametrize(
    ("precision", "products", "computed_in"),
    [
        ("nf4", "bf16", "fp32"),
        ("fp32", "bf16", "fp32"),
        ("bf16", "bf16", "bf16"),
        ("bf16", "fp32", "fp32"),
    ],
)
def test_a_cpu_computes_4_bit_weights_in_fp32_and_those_of_16_bits_in_what_is_faster(
    precision: Precision, products: str, computed_in: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(cpu_products.VARIABLE, products)
    conditions = score_conditions.compute_name([], precision)
    assert conditions == {"machine": f"cpu {os.uname().machine}", "computed_in": computed_in}


def test_gpus_are_read_from_the_drivers_output():
    output = "NVIDIA H100 80GB HBM3, 9.0\nTesla T4, 7.5\n"
    assert device.read_graphics(output) == [H100, T4]
    assert device.read_graphics("No devices were found\n") == []


@pytest.mark.parametrize(
    ("cuda", "computing"),
    [
        pytest.param("cuda: Optional[str] = '12.8'", [Graphics("GPU", None)], id="for-cuda"),
        pytest.param("cuda: Optional[str] = None", [], id="for-the-cpu"),
        pytest.param("", [Graphics("GPU", None)], id="not-known"),
    ],
)
def test_a_torch_without_cuda_computes_on_no_gpu(
    cuda: str, computing: list[Graphics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{cuda}\nhip = None\n")
    assert device.computing_graphics(tmp_path, tmp_path, tmp_path) == computing


def test_gpus_are_read_from_the_drivers_files_without_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.graphics(tmp_path, tmp_path) == []
    (tmp_path / "nvidiactl").touch()
    assert device.graphics(tmp_path, tmp_path) == [Graphics("GPU", None)]
    information = tmp_path / "driver/nvidia/gpus/0000:01:00.0/information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    assert device.graphics(tmp_path, tmp_path) == [Graphics(H100.name, None)]


def test_scores_name_whose_tokens_begin_a_prompt_where_the_tokenizer_would_add_one(tmp_path: Path):
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert "special_tokens" not in chat_templates.conditions(tmp_path)
    inner = tokenizer.backend_tokenizer
    inner.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(tmp_path)
    assert "special_tokens" in chat_templates.conditions(tmp_path)


@pytest.mark.parametrize(
    ("end", "is_named"),
    [
        pytest.param("<|im_end|>", False, id="the tokenizer's"),
        pytest.param("{{ eos_token }}", False, id="the tokenizer's by name"),
        pytest.param("<\uff5cend\uff5c>", False, id="the tokenizer's in deepseek's signs"),
        pytest.param("<end_of_turn>", True, id="gemma"),
        pytest.param("<|end|>\n{{ eos_token }}", True, id="phi-3"),
    ],
)
def test_scores_name_whose_token_ends_an_answer_where_it_is_not_the_tokenizers(
    tmp_path: Path, end: str, is_named: bool
):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("<|im_end|>", end)
    if not end.isascii():
        tokenizer.eos_token = end
    tokenizer.save_pretrained(tmp_path)
    assert ("end" in chat_templates.conditions(tmp_path)) == is_named


@pytest.mark.parametrize(
    ("template", "is_versioned"),
    [
        pytest.param(templates.QWEN, False, id="no thoughts"),
        pytest.param(templates.THINKING, True, id="thoughts"),
        pytest.param(templates.CHANNELS, True, id="channels"),
    ],
)
def test_scores_of_templates_with_thoughts_name_the_version_of_where_their_prompts_end(
    tmp_path: Path, template: str, is_versioned: bool
):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    assert ("answer_start" in chat_templates.conditions(tmp_path)) == is_versioned
