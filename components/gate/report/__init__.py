"""What a person reads of evidence: write_report writes charts, page and rows; brief the form."""
