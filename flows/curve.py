"""Keep what a training says on its way, and show it as a picture in Prefect and in MLflow."""

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from components.pages import jinja
from components.register import tracking
from components.schema import Progress
from components.train import picture
from flows import jobs

HISTORY, PICTURE = "history.jsonl", "loss.png"

SECONDS = 60.0
"""While a training goes on, its picture is drawn anew this often."""


def key(workload: str) -> str:
    """Key of the artifacts that hold the pictures of a workload's trainings."""
    return f"loss-{re.sub('[._]', '-', workload)}"


class Curve:
    """The history of one training, through kills; it lies in the job's folder.

    The picture is an artifact of the flow run that trains, and of the training's MLflow run.
    """

    def __init__(self, folder: Path, workload: str, run_id: str, title: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._workload = folder, workload
        self._run_id, self._title = run_id, title
        self._artifact: UUID | None = None
        self._drawn = time.monotonic()

    def add(self, progress: Progress) -> None:
        """Keep a line, and draw the picture anew now and then."""
        with (self._folder / HISTORY).open("a") as file:
            file.write("\n" + jobs.to_json(progress))  # a line that a kill cut off ends here
        if time.monotonic() - self._drawn >= SECONDS:
            self.show()

    def show(self) -> None:
        """Draw all that was said; nothing where nothing was."""
        self._drawn = time.monotonic()
        told = read(self._folder)
        if not told:
            return
        path = self._folder / PICTURE
        picture.draw(told, path)
        tracking.log_picture(self._run_id, path)
        text = page(self._title, told, path)
        if self._artifact is None:
            made = create_markdown_artifact(text, key=key(self._workload), description=self._title)
            assert isinstance(made, UUID)  # it is a coroutine only where the caller is one
            self._artifact = made
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifact, ArtifactUpdate(data=text))


def read(folder: Path) -> list[Progress]:
    """Read what the training of a job folder has said; a line that a kill cut off is left out."""
    try:
        lines = (folder / HISTORY).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [one for line in lines if (one := _progress(line)) is not None]


def _progress(line: str) -> Progress | None:
    try:
        return Progress(**json.loads(line))
    except json.JSONDecodeError:
        return None


def page(title: str, told: Iterable[Progress], path: Path) -> str:
    """Write the page: the picture, and the newest figure of each name."""
    newest = {name: (one, value) for one in told for name, value in one.figures.items()}
    return jinja.render("train/curve.md.j2", title=title, newest=newest, picture=path)
