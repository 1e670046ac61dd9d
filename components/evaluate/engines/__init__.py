"""Engines that compute answers: `load.load_engine` picks one and loads a base in it."""
