"""The registry at a location, opened for reading."""

from __future__ import annotations

from registry.embedded import Embedded
from registry.location import Location
from registry.reading import Registry


def open_registry(location: Location) -> Registry:
    """The reader for a location: the embedded registry's database, or a server's REST interface."""
    if location.url is not None:
        from registry.rest import Server

        return Server(location.url)
    assert location.folder is not None
    return Embedded(location.folder)
