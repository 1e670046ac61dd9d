"""Evidence as people read it: write_report writes page and rows; brief the form."""
