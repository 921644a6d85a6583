"""A release into the registry. Creating the version is the commit, and the last thing that happens.

Files first, each read back and hashed; evidence; the manifest last of all; then one call creates the version with all
its tags. A crash before that leaves no version, and running again takes up what lies there. The same release digest
is one version, whoever publishes it again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import LockstepError, ToolchainError
from registry import manifest, stored, tracking
from registry.dossier import tells_more
from registry.embedded import EXPERIMENT_PREFIX, Embedded, is_unmade
from registry.location import DATABASE, Location
from registry.manifest import Entry
from registry.reading import DIGEST_TAG, STATUS_TAG, Registry, Version
from registry.release import Release
from registry.stores import open_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

PLACE = "release"


@dataclass(frozen=True, slots=True)
class Published:
    """The version that holds a release, and whether this call created it, put its bytes back, or its dossier."""

    version: Version
    created: bool = False
    repaired: bool = False
    renewed: bool = False


def published(location: Location, release: Release, dossier: Path | None = None) -> Version | None:
    """The version of this release if it is there and its dossier tells no less than this one; its files are hashed again
    where they lie on this machine.

    On a server this is one read, of the version alone: `publish` reads every file back. Raises IntegrityError where a
    published file is not what was published.
    """
    registry = open_registry(location)
    found = stored.find(registry, release.name, release.digest)
    if found is not None and isinstance(registry, Embedded):
        stored.check(registry, found)
    less = found is not None and dossier is not None and tells_more(registry, found, dossier)
    return None if less else found


def publish(location: Location, release: Release, *, dossier: Path | None = None, repair: bool = False) -> Published:
    """Make sure the registry holds this release, whole, with its `dossier` beside it; gives its version.

    The dossier of a version that is there stays, unless this one has a self-test that it lacks.
    """
    with _one_at_a_time(location):
        registry = open_registry(location)
        found = stored.find(registry, release.name, release.digest)
        if found is not None:
            try:
                stored.check(registry, found)
            except LockstepError:  # a changed file, or one that a server no longer has
                if not repair:
                    raise
            else:
                if dossier is not None and tells_more(registry, found, dossier):
                    return _renew(location, release, dossier, found)
                return Published(found)
        return _commit(location, registry, release, dossier, found)


def _renew(location: Location, release: Release, dossier: Path, found: Version) -> Published:
    """Log the dossier again to the run of a version that is whole."""
    with _refusals(location), redirect_stdout(sys.stderr):
        client = _client(location)
        tracking.record(client, _run_for(client, location, release)[0], dossier)
    return Published(found, renewed=True)


def _commit(
    location: Location, registry: Registry, release: Release, dossier: Path | None, found: Version | None
) -> Published:
    with (
        _refusals(location),
        redirect_stdout(sys.stderr),
    ):  # MLflow greets on stdout, which is ours for one JSON document
        client = _client(location)
        run_id, source = _run_for(client, location, release)
        _upload(client, registry, run_id, source, release)
        if dossier is not None:
            tracking.record(client, run_id, dossier)
        if found is None:
            _create(client, release, run_id, source)
    version = stored.find(registry, release.name, release.digest)
    if version is None:
        raise ToolchainError(f"the registry at {location} accepted the release and does not list it; publish again")
    if found is not None:
        stored.check(registry, version)
    return Published(version, created=found is None, repaired=found is not None)


@contextmanager
def _refusals(location: Location) -> Iterator[None]:
    """What MLflow raises as ToolchainError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ToolchainError(f"the registry at {location} refused: {error}") from error
    except OSError as error:
        raise ToolchainError(f"the registry at {location} could not be written: {error}") from error


def _create(client: MlflowClient, release: Release, run_id: str, source: str) -> None:
    """The commit: one row with all its tags. Of two racing publishers the lowest version stays."""
    document = manifest.parse((release.files / manifest.FILE).read_bytes()).document
    tags = {DIGEST_TAG: release.digest, STATUS_TAG: "PASS", "lockstep.source": document["source"]["digest"]}
    tags |= {f"lockstep.target.{name}": target["verdict"]["status"] for name, target in document["targets"].items()}
    if not client.search_registered_models(filter_string=f"name='{release.name}'"):
        _ignore_existing(client, release.name)
    mine = client.create_model_version(release.name, source=source, run_id=run_id, tags=tags)
    same = [
        v for v in client.search_model_versions(f"name='{release.name}'") if v.tags.get(DIGEST_TAG) == release.digest
    ]
    lowest = min(int(v.version) for v in same)
    if int(mine.version) != lowest:
        client.delete_model_version(release.name, mine.version)
    client.set_terminated(run_id, "FINISHED")


def _ignore_existing(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _client(location: Location) -> MlflowClient:
    from mlflow import MlflowClient

    if location.folder is not None:
        location.folder.mkdir(parents=True, exist_ok=True)
        _make_database(location.folder)
    return MlflowClient(tracking_uri=location.tracking_uri, registry_uri=location.tracking_uri)


def _make_database(folder: Path) -> None:
    """MLflow's tables, made aside and put in place whole.

    It cannot go on where a process was killed while it made them ("duplicate column name").
    """
    from mlflow import MlflowClient

    if not is_unmade(folder):
        return
    aside = folder / ".making"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        MlflowClient(tracking_uri=f"sqlite:///{aside}/{DATABASE}").search_experiments(max_results=1)
    except Exception as error:  # whatever SQLAlchemy, alembic or SQLite raise
        raise ToolchainError(f"{folder}: MLflow could not make its tables there: {error}") from error
    os.replace(aside / DATABASE, folder / DATABASE)
    shutil.rmtree(aside, ignore_errors=True)


def _run_for(client: MlflowClient, location: Location, release: Release) -> tuple[str, str]:
    """The run that holds this release's files (an interrupted publish may have left it), and where they lie."""
    name = f"{EXPERIMENT_PREFIX}{release.name}"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        place = None if location.folder is None else f"{location.folder}/artifacts/{release.name}"
        experiment_id = client.create_experiment(name, artifact_location=place)
    else:
        experiment_id = experiment.experiment_id
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{release.digest}'")
    run = (
        runs[0]
        if runs
        else client.create_run(
            experiment_id, tags={DIGEST_TAG: release.digest}, run_name=f"release {release.digest[:12]}"
        )
    )
    return run.info.run_id, f"{run.info.artifact_uri}/{PLACE}"


def _upload(client: MlflowClient, registry: Registry, run_id: str, source: str, release: Release) -> None:
    """Files, evidence, manifest last; each read back. What already lies there with the right digest stays."""
    here = Version(release.name, 0, source, {})
    promised = manifest.parse((release.files / manifest.FILE).read_bytes())
    for entry in stored.entries(promised):
        if not _reads_back(registry, here, entry):
            folder = str(Path(PLACE) / Path(entry.path).parent)
            client.log_artifact(run_id, str(release.files / entry.path), folder)
            if not _reads_back(registry, here, entry):
                raise ToolchainError(
                    f"the registry stored `{entry.path}` and gives other bytes back; nothing was published"
                )
    client.log_artifacts(run_id, str(release.evidence), "evidence")
    client.log_artifact(run_id, str(release.files / manifest.FILE), PLACE)
    data = (release.files / manifest.FILE).read_bytes()
    if not _reads_back(registry, here, Entry(manifest.FILE, len(data), release.digest)):
        raise ToolchainError("the registry stored the manifest and gives other bytes back; nothing was published")


def _reads_back(registry: Registry, version: Version, entry: Entry) -> bool:
    """Whether the registry gives exactly these bytes for a file."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "file"
        try:
            registry.fetch(version, entry.path, copy)
            manifest.check_file(copy, entry, "read back")
        except LockstepError:
            return False
    return True


@contextmanager
def _one_at_a_time(location: Location) -> Iterator[None]:
    """Publishers of one embedded registry take turns: its database has no server to do that for them."""
    if location.folder is None:
        yield
        return
    location.folder.mkdir(parents=True, exist_ok=True)
    with (location.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
