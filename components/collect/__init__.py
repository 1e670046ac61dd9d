"""Read logs and feedback files into ``raw``; what can't be read goes to quarantine."""
