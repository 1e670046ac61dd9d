"""Measure models on the frozen holdout with lm-eval."""
