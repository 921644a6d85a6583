"""The embedded registry: MLflow's SQLite database and a folder of artifacts, read without MLflow and without a server.

MLflow writes absolute paths into its database. A project that was moved or copied is noticed by them, and mended in
one transaction: the rows then point at the folder where the database lies.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from compile.errors import ToolchainError
from registry.location import DATABASE
from registry.reading import Version

PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
EXPERIMENT_PREFIX = "lockstep/"


class Embedded:
    """Reader of an embedded registry; a missing database is an empty registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mend(folder)

    def __str__(self) -> str:
        return str(self.folder)

    def versions(self, name: str) -> list[Version]:
        with self._read() as database:
            rows = database.execute(
                "select version, source from model_versions where name = ? and current_stage != 'Deleted_Internal' "
                "order by version",
                (name,),
            ).fetchall()
            tags: dict[int, dict[str, str]] = {}
            for number, key, value in database.execute(
                "select version, key, value from model_version_tags where name = ?", (name,)
            ):
                tags.setdefault(number, {})[key] = value
        return [Version(name, number, source, tags.get(number, {})) for number, source in rows]

    def names(self) -> list[str]:
        with self._read() as database:
            return [name for (name,) in database.execute("select distinct name from model_versions order by name")]

    def channels(self, name: str) -> Mapping[str, int]:
        with self._read() as database:
            return dict(database.execute("select alias, version from registered_model_aliases where name = ?", (name,)))

    def fetch(self, version: Version, path: str, to: Path) -> None:
        try:
            shutil.copyfile(self.path(version, path), to)
        except OSError as error:
            raise ToolchainError(
                f"{version.name} version {version.number}: `{path}` cannot be copied: {error}"
            ) from error

    def path(self, version: Version, path: str) -> Path:
        """Where a file of a release lies on this disk."""
        return Path(version.source.removeprefix("file://")) / path

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        database = self.folder / DATABASE
        try:
            with closing(_connected(database)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise ToolchainError(f"{database}: cannot be read: {error}") from error


def _connected(database: Path) -> sqlite3.Connection:
    """The database, or an empty one where there is none or MLflow did not finish making it."""
    if database.is_file():
        connection = _open(database)
        if _is_whole(connection):
            return connection
        connection.close()
    empty = sqlite3.connect(":memory:")
    empty.executescript(
        "create table model_versions (name, version, source, current_stage);"
        "create table model_version_tags (name, version, key, value);"
        "create table registered_model_aliases (name, alias, version);"
    )
    return empty


def is_unmade(folder: Path) -> bool:
    """Whether MLflow's tables are yet to be made here."""
    database = folder / DATABASE
    if not database.is_file():
        return True
    try:
        with closing(_open(database)) as connection:
            return not _is_whole(connection)
    except sqlite3.Error as error:
        raise ToolchainError(f"{database}: cannot be read: {error}") from error


def mend(folder: Path) -> str | None:
    """Point the database at the folder it lies in; gives the folder it pointed at, or None if it was right."""
    database = folder / DATABASE
    if not database.is_file():
        return None
    try:
        with closing(_open(database)) as connection:
            old = _moved_from(connection, folder) if _is_whole(connection) else None
        if old is None:
            return None
        with closing(sqlite3.connect(database)) as connection, connection:
            for table, column in PATHS:
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where {column} like ? || '/%'",
                    (str(folder), len(old) + 1, old),
                )
    except sqlite3.Error as error:
        raise ToolchainError(f"{database}: cannot be read or mended: {error}") from error
    return old


def _open(database: Path) -> sqlite3.Connection:
    """For reading. Not as `mode=ro`: only a writer may roll back what a killed process left half written."""
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True)


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether MLflow finished making its tables: a process killed at its first use leaves some, or none."""
    found = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    return {*(table for table, _ in PATHS), "model_version_tags", "registered_model_aliases"} <= found


def _moved_from(connection: sqlite3.Connection, folder: Path) -> str | None:
    """The registry folder that the database still speaks of, where it is another one than `folder`."""
    rows = connection.execute(
        "select name, artifact_location from experiments where name like ? || '%'", (EXPERIMENT_PREFIX,)
    )
    for name, location in rows:
        root = str(location).removesuffix(f"/artifacts/{name.removeprefix(EXPERIMENT_PREFIX)}")
        if root != location and root != str(folder):
            return root
    return None
