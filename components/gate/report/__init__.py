"""Evidence as people read it: write_report writes charts, page and rows; brief the form."""
