"""Write the folder that NVIDIA NIM takes adapters from (``NIM_PEFT_SOURCE``)."""

import shutil
from pathlib import Path

from components.export import plain, portable


def write(adapter: Path, source: Path, *, name: str, served_as: str | None = None) -> Path:
    """Put an adapter into a folder of adapters: ``<source>/<name>/``, two files, nothing below.

    Args:
        adapter: The adapter's folder.
        source: The folder of adapters.
        name: What requests will call the model; a name that was used before may be answered from a
            cache, so it should be the adapter's alone.
        served_as: What it says its base is called; as before if not given.

    Raises:
        ValueError: It is not plain LoRA.
    """
    plain.require(plain.config_of(adapter), "NIM")
    folder = source / name
    folder.mkdir(parents=True)
    for file in (plain.CONFIG, plain.WEIGHTS):
        shutil.copyfile(adapter / file, folder / file)
    if served_as is not None:
        portable.name_base(folder, served_as)
    return folder
