"""The store: numbered migrations, and one select a file whose path is the name of its table."""
