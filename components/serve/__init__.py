"""Serve each workload's champion over an OpenAI-compatible API, and log every answer durably.

Start at `gateway`, the path of a request: routing, answer, log; `answering_servers` asks replicas
and fallbacks. `endpoints` has the HTTP routes, `settings` the file `serve.yaml`, `routes` which
version serves which workload. `follower` keeps the routes on each champion: `staging_children`
fetch it, `replica_set` loads and proves it, `swap` changes the routes, `gateway_reports` shows it.
"""
