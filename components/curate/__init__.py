"""Decide which interactions become examples, what they teach, and on which side they stand."""
