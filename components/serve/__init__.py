"""Serve each workload's champion over one shared base, and log every answer.

gateway is the way in: a request's path from its token to the log.
"""
