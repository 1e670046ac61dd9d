"""A two-layer random Llama and a byte-level tokenizer, built on the spot: nothing to download."""

from collections.abc import Sequence
from pathlib import Path

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path) -> Path:
    """Write the model (safetensors, bf16) and its tokenizer to ``folder``, the same every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer()
    made.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,  # so that an adapter can move the logits far enough to be seen
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
        bos_token_id=SPECIAL.index("<|im_start|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    model.bfloat16()
    model.save_pretrained(folder)
    return folder


def tokenizer(unused: Sequence[str] = ()):
    """Return a byte-level tokenizer without merges; no text has the ``unused`` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet, *unused])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=SPECIAL,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
