"""Pick what a person's answer helps most on (pick), draw an audit (audit), read label_files."""
