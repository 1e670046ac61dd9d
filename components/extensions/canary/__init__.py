"""Decide from today's traffic whether an approved version may answer all of it.

`rollouts` is the gateway's port ``Rollout``. `rollout_order` is what is frozen at the start,
`conversation_arms` draws conversations, `answer_faults` and `latency_limits` find what is bad,
`rollout_evidence` is the file of it, `rollout_tally` counts, `count_evidence` weighs the counts,
and `rollout_verdict` decides. `running_rollout` is how one stands, `rollout_sharing` and
`shared_rollouts` are what gateways share, and `rollout_log` is the warehouse's record.
"""
