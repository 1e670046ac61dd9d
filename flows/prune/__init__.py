"""Deleting old outputs: `prune_flow` as often as a file says, `prune_outputs` for a person, too."""
