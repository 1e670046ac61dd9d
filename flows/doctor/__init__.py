"""Checks of an installation, `flywheel doctor`: what is insecure, broken or unreachable.

`diagnosis` runs all checks; `probes` looks, `checks` and `server_checks` judge without I/O.
"""
