"""A registry on an MLflow server, read over its REST interface with `requests` alone.

Files come through the server's artifact proxy. The credentials are those that MLflow itself reads:
`MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from compile.errors import ToolchainError
from registry.reading import Version

TIMEOUT_S = (5, 30)
"""To connect, and between two pieces of an answer."""
PROXY = "mlflow-artifacts:"
CHUNK_BYTES = 1 << 20


class Server:
    """Reader of an MLflow server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"
        elif user and password:
            self.session.auth = (user, password)

    def __str__(self) -> str:
        return self.url

    def versions(self, name: str) -> list[Version]:
        found = [_version(row) for row in self._search("model-versions", "model_versions", f"name='{name}'")]
        return sorted(found, key=lambda version: version.number)

    def names(self) -> list[str]:
        return sorted(row["name"] for row in self._search("registered-models", "registered_models", ""))

    def channels(self, name: str) -> Mapping[str, int]:
        document = self._get("registered-models/get", {"name": name}, missing_ok=True)
        aliases = document.get("registered_model", {}).get("aliases", [])
        return {row["alias"]: int(row["version"]) for row in aliases}

    def fetch(self, version: Version, path: str, to: Path) -> None:
        if not version.source.startswith(PROXY):
            raise ToolchainError(
                f"{version.name} version {version.number} lies at {version.source}, which this server does not hand out; "
                "start it with `--serve-artifacts`, or pull with MLflow itself"
            )
        place = version.source.removeprefix(PROXY).lstrip("/")
        url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{quote(place)}/{quote(path)}"
        try:
            with self.session.get(url, stream=True, timeout=TIMEOUT_S) as reply, to.open("wb") as stream:
                reply.raise_for_status()
                for piece in reply.iter_content(CHUNK_BYTES):
                    stream.write(piece)
        except requests.RequestException as error:
            raise ToolchainError(f"{self.url}: `{path}` could not be fetched: {error}; try again") from error

    def _search(self, call: str, rows: str, filtered: str) -> list[dict[str, Any]]:
        """Every row of a paged search."""
        found: list[dict[str, Any]] = []
        page = ""
        while True:
            document = self._get(f"{call}/search", {"filter": filtered, "page_token": page})
            found += document.get(rows, [])
            page = document.get("next_page_token", "")
            if not page:
                return found

    def _get(self, call: str, query: Mapping[str, str], *, missing_ok: bool = False) -> dict[str, Any]:
        url = f"{self.url}/api/2.0/mlflow/{call}"
        try:
            reply = self.session.get(url, params={k: v for k, v in query.items() if v}, timeout=TIMEOUT_S)
            if reply.status_code == requests.codes.not_found and missing_ok:
                return {}
            reply.raise_for_status()
            return dict(reply.json())
        except (requests.RequestException, ValueError) as error:
            raise ToolchainError(f"the registry at {self.url} does not answer as MLflow does: {error}") from error


def _version(row: Mapping[str, Any]) -> Version:
    tags = {tag["key"]: tag.get("value", "") for tag in row.get("tags", [])}
    return Version(row["name"], int(row["version"]), row.get("source", ""), tags)
