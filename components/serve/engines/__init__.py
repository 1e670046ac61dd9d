"""Clients of inference engines: one protocol, a module for each engine.

serving_engine has the protocol.
"""
