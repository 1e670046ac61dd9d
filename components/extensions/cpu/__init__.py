"""What only a CPU computes with: kernels of training, a tree of prompts, faster quantization.

`kernels` are fused LoRA layers and data-parallel threads, `attention` is by blocks; the core calls
them by `train.device_engine`. `prefix_engine` answers from `prefix_cache`, by `evaluate.engines`.
"""
