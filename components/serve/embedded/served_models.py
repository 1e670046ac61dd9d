"""The names that the engine answers to: its base and the adapters that were loaded."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from components.serve.embedded.lora_folder import LoraAdapter, UnservableAdapterError, read_adapter
from components.serve.embedded.lora_pool import LoraPool, PooledAdapter
from components.serve.embedded.shared_base import SharedBase

SPARE = 2
"""Places of a pool for each adapter that may be loaded: an unloaded one keeps its place until its
last request has ended. Empty places take no memory."""


class ModelNotFoundError(LookupError):
    """No model, or no folder, has that name."""


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter under a name; ``root`` is its folder as the request named it."""

    name: str
    root: str
    pooled: PooledAdapter


class ServedModels:
    """The base under ``name``, and at most ``most`` adapters."""

    def __init__(self, base: SharedBase, folder: Path, name: str, most: int) -> None:
        self.base, self.folder, self.name, self.most = base, folder, name, most
        self.adapters: dict[str, ServedAdapter] = {}
        self._pools: dict[int, LoraPool] = {}
        self._loading = asyncio.Lock()

    def find(self, name: str) -> PooledAdapter | None:
        """Return the adapter of a name; ``None`` is the base's."""
        if name == self.name:
            return None
        if (adapter := self.adapters.get(name)) is None:
            raise ModelNotFoundError(f"The model `{name}` does not exist.")
        return adapter.pooled

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
                pooled = await asyncio.to_thread(self._read, Path(path))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise ModelNotFoundError(
                    f"loading the adapter '{name}': No adapter found at {path} "
                    f"({error.filename} is missing)"
                ) from error
            self.adapters[name] = ServedAdapter(name, path, pooled)

    def remove(self, name: str) -> tuple[PooledAdapter, bool]:
        """Forget a name; return its adapter, and whether another name has the same files."""
        if name not in self.adapters:
            raise ModelNotFoundError(f"The lora adapter '{name}' cannot be found.")
        pooled = self.adapters.pop(name).pooled
        return pooled, any(other.pooled.key == pooled.key for other in self.adapters.values())

    def _read(self, folder: Path) -> PooledAdapter:
        adapter: LoraAdapter = read_adapter(folder, self.base.linears)
        pool = self._pools.get(adapter.rank)
        if pool is None:
            pool = self._pools[adapter.rank] = self.base.pool(adapter.rank, self.most * SPARE)
        if not pool.free:
            raise UnservableAdapterError(
                f"loading {folder}: {self.most * SPARE} adapters of rank {adapter.rank} are in "
                "memory, since requests of unloaded ones still run; try again later"
            )
        return pool.put(adapter)
