"""Pick the interactions where a person's answer helps most (pick); read answers (label_files)."""
