"""Take interactions, feedback and telemetry over HTTP, and acknowledge what is on disk.

serve is the way in and settings its limits; app are the routes, openapi documents them. intake
is a request's way to disk: client_tokens (who, and how much), admission (is there room; the
body), readers (large bodies in their own process), payloads (is it well-formed), group commit.
"""
