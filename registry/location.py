"""Which registry: `--registry`, then `MLFLOW_TRACKING_URI`, then the embedded one of the project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compile.errors import ConfigError

DATABASE = "mlflow.db"


@dataclass(frozen=True, slots=True)
class Location:
    """Exactly one is set: the folder of an embedded registry, or the address of an MLflow server."""

    folder: Path | None = None
    url: str | None = None

    @property
    def tracking_uri(self) -> str:
        """What MLflow itself calls this registry."""
        return self.url if self.url is not None else f"sqlite:///{self.folder}/{DATABASE}"

    def __str__(self) -> str:
        return self.url if self.url is not None else str(self.folder)


def locate(named: str | None, from_environment: str | None, embedded: Path) -> Location:
    """The registry to use; `named` and the environment may give a URL, a folder, or the embedded database's URI."""
    chosen = named or from_environment
    if not chosen:  # an empty variable is an unset one
        return Location(folder=embedded)
    if chosen.startswith(("http://", "https://")):
        return Location(url=chosen.rstrip("/"))
    if chosen.startswith("sqlite:///") and chosen.endswith(f"/{DATABASE}"):
        return Location(folder=Path(chosen.removeprefix("sqlite:///")).resolve().parent)
    if "://" in chosen:
        raise ConfigError(f"registry `{chosen}`: expected the URL of an MLflow server (http, https) or a folder")
    return Location(folder=Path(chosen).resolve())
