"""Evidence as people read it: write_report writes its charts, page, rows and brief."""
