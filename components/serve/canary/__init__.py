"""Decide from today's traffic whether an approved version may answer all of it.

Start at `rollout_verdict`: what is decided, from which counts. `conversation_arms` assigns
conversations, `latency_limits` says what is slow, `rollout_tally` counts, `count_evidence` weighs
the counts, `rollout_plan` is what is frozen at the start (`rollout_order`, with what a version's
tag has of it), and `rollout_look` is what the gateway does with all of it every few seconds.
"""
