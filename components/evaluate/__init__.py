"""Evaluate models with lm-eval: `harness.evaluate` is the entry point.

`holdout_task` is the workload's own task, `guards` and `guard_runs` are lm-eval's tasks, `built_in`
our other tasks, `answer_judge` the port of an LLM judge. `engines` compute answers, on a CPU with
`extensions.cpu`.
"""
