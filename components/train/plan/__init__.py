"""Predict a training's memory, steps, tokens, time and price: `planner.make_plan` is the way in."""
