"""A warehouse for the tests of decisions."""
