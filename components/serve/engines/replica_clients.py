"""The clients of the replicas that a home's `serve.yaml` names."""

import os
from pathlib import Path

from components.serve.engines import http_upstream
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.lorax import LoraxServer
from components.serve.engines.nim import NimServer
from components.serve.engines.serving_engine import ServingEngine
from components.serve.engines.sglang import SglangServer
from components.serve.engines.vllm_server import VllmServer
from components.serve.settings import EngineSettings, ReplicaSettings


def make_engines(settings: EngineSettings) -> dict[str, ServingEngine]:
    """Return a client for each replica in the file; empty for the embedded engine."""
    return {replica.name: _make_engine(settings, replica) for replica in settings.replicas}


def _make_engine(settings: EngineSettings, replica: ReplicaSettings) -> ServingEngine:
    upstream = HttpUpstream(
        replica.url,
        api_key=http_upstream.read_key(settings.api_key_env, os.environ, replica.name),
        connect_seconds=settings.connect_seconds,
        patience_seconds=settings.first_byte_seconds,
    )
    adapters = Path(settings.adapters) if settings.adapters else None
    match settings.kind:
        case "vllm":
            return VllmServer(replica.name, upstream, base=settings.base_name, adapters=adapters)
        case "nim":
            assert adapters is not None  # the settings require it
            return NimServer(
                replica.name,
                upstream,
                adapters,
                refresh_seconds=settings.refresh_seconds,
                base=settings.base_name,
            )
        case "sglang":
            return SglangServer(replica.name, upstream, base=settings.base_name, adapters=adapters)
        case "lorax":
            return LoraxServer(replica.name, upstream, adapters=adapters)
        case "embedded":
            raise ValueError("the embedded engine has no `replicas`")
