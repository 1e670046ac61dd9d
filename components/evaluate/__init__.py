"""Measure models on the frozen holdout: ``harness`` runs lm-eval's ``task``, ``metric`` scores."""
