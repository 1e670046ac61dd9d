"""Stage registered versions, each in a process of its own, which can hang or be given up."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import defaultdict
from contextlib import suppress

from components.serve import staged_version
from components.serve.champion_watch import RegistryAddress
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings


class StagingError(Exception):
    """A version was refused, or could not be fetched."""

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class StagingChildren:
    """The processes of ``components.serve.staging``; belongs to one event loop."""

    def __init__(
        self,
        settings: ServeSettings,
        places: ServePlaces,
        address: RegistryAddress | None,
        longest_seconds: float,
    ) -> None:
        self._settings, self._places, self._address = settings, places, address
        self._longest_seconds = longest_seconds
        # By workload and version: what one run computes, the next one finds.
        self._locks = defaultdict[tuple[str, str], asyncio.Lock](asyncio.Lock)

    async def stage(
        self, workload: str, version: str, precision: str | None, *, only_references: bool = False
    ) -> str:
        """Stage a version; return the engine's name of its adapter.

        Args:
            workload: The workload.
            version: The number of the registered version.
            precision: The engine's precision; its own default when ``None``.
            only_references: Make only what a proof compares with, which takes longer than all else.

        Raises:
            StagingError: It was refused, or it failed or took too long.
        """
        engine = self._settings.engine
        arguments = [
            *("--serve", str(self._places.folder)),
            *("--workload", workload),
            *("--version", version),
            *("--key", str(self._places.public_key)),
            *_option("--base", engine.base),
            *([] if engine.kind == "embedded" else ["--is-plain"]),
            *_option("--precision", precision),
            *(["--only-references"] if only_references else []),
        ]
        async with self._locks[workload, version]:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "components.serve.staging", *arguments),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._environment()},
                start_new_session=True,  # it has a child of its own, which ends with it
            )
            seconds = self._longest_seconds
            try:
                async with asyncio.timeout(seconds):
                    output, _ = await process.communicate()
            except TimeoutError as error:
                raise StagingError(
                    f"staging version {version} of {workload} took longer than {seconds:g} s"
                ) from error
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
                    self.delete_scratch(f"{process.pid}-")
        try:
            result = json.loads(output)
        except ValueError as error:
            raise StagingError(
                f"staging version {version} of {workload} ended with code {process.returncode}"
            ) from error
        if "staged" not in result:
            refusal = result.get("refused")
            reason = str(refusal or result.get("failed"))
            raise StagingError(reason, is_refusal=bool(refusal))
        return str(result["staged"])

    def delete_scratch(self, of: str = "") -> None:
        """Delete what stagings left: all of them, or those whose name begins so."""
        for folder in self._places.folder.glob(f"{staged_version.SCRATCH}{of}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        if self._address is None:
            return {}
        return {
            "MLFLOW_TRACKING_URI": self._address.url,
            "MLFLOW_TRACKING_USERNAME": self._address.user,
            "MLFLOW_TRACKING_PASSWORD": self._address.password,
            "MLFLOW_TRACKING_TOKEN": self._address.token,
        }


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]
