"""A server between a client and the Prefect server, which dies now and then before it answers."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx


@dataclass
class Faulty:
    """Where it listens, and how many answers to requests of a path it still keeps to itself."""

    url: str
    path: str = ""
    silent: int = 0


@contextmanager
def before(api: str) -> Generator[Faulty]:
    """Listen on a free port, and pass all on to ``api``, which ends in ``/api``."""

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            kept = {name: text for name, text in self.headers.items() if name.lower() != "host"}
            asked = httpx.request(
                self.command,
                api.removesuffix("/api") + self.path,
                content=self.rfile.read(length),
                headers=kept | {"accept-encoding": "identity"},
                trust_env=False,
            )
            if faulty.silent and self.path.endswith(faulty.path):
                faulty.silent -= 1
                self.close_connection = True
                return
            self.send_response(asked.status_code)
            self.send_header("content-type", asked.headers.get("content-type", ""))
            self.send_header("content-length", str(len(asked.content)))
            self.end_headers()
            self.wfile.write(asked.content)

        do_GET = do_POST = do_PATCH = pass_on  # noqa: N815 - as http.server names them

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    faulty = Faulty(f"http://127.0.0.1:{server.server_port}/api")
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
