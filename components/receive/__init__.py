"""Receive interactions, feedback and telemetry over HTTP; acknowledge them once they are on disk.

serve runs the server, settings has its limits, app the routes, openapi their documentation. intake
takes a request to disk: client_tokens (authentication, quotas), admission (is there room; read the
body), readers (parse large bodies in their own processes), payloads (validate), group commit.
"""
