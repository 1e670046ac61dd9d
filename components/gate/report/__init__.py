"""What a person reads of evidence: ``write`` makes pictures, page and rows of a ``case``."""
