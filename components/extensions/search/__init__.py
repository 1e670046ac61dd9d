"""Search recipes and bases by successive halving: `run.run_search` is the way in."""
