"""Evaluate models with lm-eval: `harness.evaluate` is the way in.

`holdout_task` is the workload's own task, `guards` and `guard_runs` are lm-eval's tasks, `built_in`
our own others, `judge` a judging LLM. `engines` computes answers; `prefix_cache` is the CPU's.
"""
