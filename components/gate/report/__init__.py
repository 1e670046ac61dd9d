"""Evidence as people read it: the report's page and rows, and the brief of the form."""
