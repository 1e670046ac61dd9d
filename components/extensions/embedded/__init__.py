"""The embedded engine: one base and many LoRA adapters in one batch, in a process of its own.

`openai_server` speaks HTTP, `continuous_batch` decides what is computed in the next step,
`shared_base` computes it, with `lora_folder` and `attached_lora` for adapters, `slot_memory` and
`prefix_store` for keys and values; `sampling`, `answer_text` and `grammar_masks` make answers.
"""
