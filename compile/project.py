"""Where things lie: the project's root and the folders under `out/` that a person can open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compile.errors import ConfigError

GRAPH_FILE = "graph.onnx"


@dataclass(frozen=True, slots=True)
class Project:
    """A checkout: `configs/` that people write, `out/` that lockstep writes."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> Project:
        """The nearest folder at or above `start` that holds `configs/models`."""
        for folder in (start, *start.parents):
            if (folder / "configs" / "models").is_dir():
                return cls(folder)
        raise ConfigError(f"{start}: no `configs/models` folder here or above; run lockstep inside a project")

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def embedded_registry(self) -> Path:
        return self.root / ".lockstep" / "registry"

    def config_of(self, model: str) -> Path:
        return self.configs / "models" / f"{model}.yaml"

    def out(self, model: str) -> Path:
        return self.root / "out" / model
