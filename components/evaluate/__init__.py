"""Measure models with lm-eval: ``harness`` runs ``task``, the holdout, and each ``guard``.

``task`` is scored by our ``metric``. For the guards, ``definition`` finds lm-eval's tasks,
``guards`` looks over a workload's, ``guard`` makes one ready and ``answered`` asks it.
"""
