"""A channel pointed at a release. Only what passed can be promoted."""

from __future__ import annotations

import re

from compile.errors import ConfigError, ToolchainError, nearest
from registry import stored
from registry.location import Location
from registry.reading import STATUS_TAG, Version, resolve
from registry.stores import open_registry

CHANNEL = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")
CHANNELS = ("candidate", "staging", "production")
RESERVED = re.compile(r"^(latest|v\d+)$", re.IGNORECASE)


def promote(location: Location, name: str, which: str, channel: str, *, new: bool = False) -> Version:
    """Point `channel` at a version (number, channel or digest) whose release passed.

    A channel that is neither one of ours nor there already needs `new`: a typo must not look like a promotion.
    """
    if not CHANNEL.fullmatch(channel) or RESERVED.fullmatch(channel):
        raise ConfigError(
            f"channel `{channel}`: letters, digits, - and _; not `latest` and not `v1`, which MLflow keeps"
        )
    registry = open_registry(location)
    version = resolve(registry, name, which)
    known = list(dict.fromkeys([*CHANNELS, *registry.channels(name)]))
    if not new and channel.split("--")[0] not in known and channel not in known:
        hint = nearest(channel, known)
        raise ConfigError(
            f"channel `{channel}`: expected one of {', '.join(known)}{hint} (--new makes another channel)"
        )
    if version.digest is None or version.tags.get(STATUS_TAG) != "PASS":
        raise ConfigError(f"{name} version {version.number} is no release that passed; only those can be promoted")
    stored.check(registry, version)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=location.tracking_uri, registry_uri=location.tracking_uri)
        client.set_registered_model_alias(name, channel, str(version.number))
    except MlflowException as error:
        raise ToolchainError(f"the registry at {location} refused: {error}") from error
    return version
