"""What plugs into the ports of the core, which imports nothing of it.

canary: an approved version proves itself on a share of today's traffic. embedded: the engine that
serves a base and its adapters by itself, as a process. judge: a model compares answers. machines:
what machines that share no folder share in an object store. surrogates:
made-up values in place of redacted ones.
"""
