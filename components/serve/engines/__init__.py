"""Clients of inference engines: one protocol; vLLM, what differs from it, and the embedded one.

serving_engine has the protocol.
"""
