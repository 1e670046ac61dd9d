"""What leaves the house: adapters for any PEFT, and for NIM, llama.cpp and merged models.

copy_adapter is the way in, model_card describes the adapter, gguf_lora and merged_model convert.
"""
