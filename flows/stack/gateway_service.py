"""The stack's gateway: `python -m flows.stack.gateway_service`."""

import sys

from flows import access, serving
from flows.settings import HOST, load


def main() -> str | None:
    """Serve the home's champions until a signal to stop; return why it could not start."""
    home = load()
    assert home.serve_port is not None
    access.set_umask(home.home)
    try:
        options = serving.read_serve_settings(home, None)
    except serving.ServeFileError as error:
        return str(error)
    serving.run_gateway(home, options, host=HOST, port=home.serve_port, receiver=True, ready=_say)
    return None


def _say(url: str) -> None:
    sys.stdout.write(f"serving on {url}\n")


if __name__ == "__main__":
    sys.exit(main())
