"""The names that the engine answers to: its base and the adapters that were loaded."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from components.extensions.embedded.attached_lora import AttachedLora
from components.extensions.embedded.lazy_memory import trim_heap
from components.extensions.embedded.lora_folder import UnservableAdapterError, read_adapter
from components.extensions.embedded.shared_base import SharedBase


class ModelNotFoundError(LookupError):
    """No model, or no folder, has that name."""


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter under a name; ``root`` is its folder as the request named it."""

    name: str
    root: str
    lora: AttachedLora


class ServedModels:
    """The base under ``name``, and at most ``most`` adapters."""

    def __init__(self, base: SharedBase, folder: Path, name: str, most: int) -> None:
        self.base, self.folder, self.name, self.most = base, folder, name, most
        self.adapters: dict[str, ServedAdapter] = {}
        self._loading = asyncio.Lock()

    def find(self, name: str) -> AttachedLora | None:
        """Return the adapter of a name; ``None`` is the base's."""
        if name == self.name:
            return None
        if (adapter := self.adapters.get(name)) is None:
            raise ModelNotFoundError(f"The model `{name}` does not exist.")
        return adapter.lora

    async def load(self, name: str, path: str) -> None:
        """Load an adapter in a thread of its own, while the batch goes on.

        Raises:
            ModelNotFoundError: The folder, or a file of it, does not exist.
            UnservableAdapterError: The name is taken, there are too many adapters, or the folder is
                not a plain LoRA adapter of this base.
        """
        async with self._loading:
            if name == self.name or name in self.adapters:
                raise UnservableAdapterError(f"The lora adapter '{name}' has already been loaded.")
            if len(self.adapters) >= self.most:
                raise UnservableAdapterError(
                    f"loading the adapter '{name}': {len(self.adapters)} adapters are loaded, as "
                    "many as --max-loras allows; unload one first, or raise it"
                )
            try:
                lora = await asyncio.to_thread(self._read, Path(path))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise ModelNotFoundError(
                    f"loading the adapter '{name}': No adapter found at {path} "
                    f"({error.filename} is missing)"
                ) from error
            except OSError as error:
                raise UnservableAdapterError(f"loading the adapter '{name}': {error}") from error
            self.adapters[name] = ServedAdapter(name, path, lora)
            await asyncio.to_thread(trim_heap)  # the files' bytes

    def remove(self, name: str) -> tuple[AttachedLora, bool]:
        """Forget a name; return its adapter, and whether another name has the same files."""
        if name not in self.adapters:
            raise ModelNotFoundError(f"The lora adapter '{name}' cannot be found.")
        lora = self.adapters.pop(name).lora
        return lora, any(other.lora.key == lora.key for other in self.adapters.values())

    def _read(self, folder: Path) -> AttachedLora:
        return self.base.attach(read_adapter(folder, self.base.linears))
