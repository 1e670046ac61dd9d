"""Pick the interactions on which a person's answer helps most (pick); read it (label_files)."""
