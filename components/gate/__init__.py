"""Judge scorecards: pass, fail or inconclusive, with reasons."""
