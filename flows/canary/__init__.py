"""Canaries: start, standing, settling and end; the flows' half of ``components.extensions.canary``.

`canary_rollouts` is the port ``flows.trials.Trials``.
"""
