"""`ray start` that waits as long as a loaded machine needs: Ray's limit of 30 s is fixed."""

import time
from typing import Any

import ray._private.services as services  # pyright: ignore[reportMissingImports]
from ray.scripts.scripts import main  # pyright: ignore[reportMissingImports]

SECONDS = 600
_get_node = services.get_node


def patient(*arguments: Any) -> Any:
    """Return the node as soon as it has registered."""
    last = time.monotonic() + SECONDS
    while True:
        try:
            return _get_node(*arguments)
        except RuntimeError:
            if time.monotonic() > last:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    services.get_node = patient
    main()
