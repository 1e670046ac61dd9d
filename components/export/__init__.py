"""Export adapters for PEFT, NIM and llama.cpp, and as merged models.

copy_adapter is the entry point, model_card describes the adapter, gguf_lora and merged_model
convert.
"""
