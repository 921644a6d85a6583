"""Reading a registry without MLflow: versions, channels, files. Two real ones: embedded and a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compile.errors import ConfigError, nearest

DIGEST_TAG = "lockstep.digest"
STATUS_TAG = "lockstep.status"


@dataclass(frozen=True, slots=True)
class Version:
    """One release in the registry. `source` is where its files lie, in the registry's own terms."""

    name: str
    number: int
    source: str
    tags: Mapping[str, str]

    @property
    def digest(self) -> str | None:
        """The release digest: SHA-256 of its manifest; None for a version that lockstep did not publish."""
        return self.tags.get(DIGEST_TAG)


class Registry(Protocol):
    """What pull, verify, promote and status need to read."""

    def versions(self, name: str) -> list[Version]:
        """All versions, oldest first; empty where the model is unknown."""

    def names(self) -> list[str]:
        """Every model that was ever published here."""

    def channels(self, name: str) -> Mapping[str, int]:
        """Channel -> version number."""

    def fetch(self, version: Version, path: str, to: Path) -> None:
        """Copy one file of a release; ToolchainError where it is not there or the registry does not answer."""


def resolve(registry: Registry, name: str, wanted: str) -> Version:
    """The version that a number, a channel or `sha256:DIGEST` names; ConfigError says what there is instead."""
    versions = registry.versions(name)
    channels = registry.channels(name)
    number = int(wanted) if wanted.isdigit() else channels.get(wanted)
    digest = wanted.removeprefix("sha256:") if wanted.startswith("sha256:") else None
    for version in versions:
        if version.number == number or (digest is not None and version.digest == digest):
            return version
    if not versions:
        names = registry.names()
        holds = ", ".join(names) or "nothing: no release was published there, or no registry is there"
        raise ConfigError(f"{name}: no such model in {registry}, which holds {holds}{nearest(name, names)}")
    have = [*(str(v.number) for v in versions), *channels]
    raise ConfigError(
        f"{name}@{wanted}: no such version or channel in {registry}, which has {', '.join(have)}{nearest(wanted, have)}"
    )
