"""CPU-only kernels of training: fused LoRA layers, block attention, one share per thread.

Nothing here runs on CUDA; delete the package and its few callers to train with PEFT alone.
"""
