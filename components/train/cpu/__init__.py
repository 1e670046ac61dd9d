"""CPU-only kernels of training: fused LoRA layers, block attention, data-parallel threads.

Nothing here runs on CUDA; delete the package and its few callers to train with PEFT alone.
"""
