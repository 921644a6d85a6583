"""The front door: one `lockstep` command. Verbs parse, call one station, print, and exit with a code that CI can use.

Exit codes: 0 passed; 1 a verdict failed; 2 configuration or usage; 3 a toolchain or the registry failed; 4 could not
be judged; 130 interrupted. Of several, the first of 2, 3, 1, 4, 0 that occurred.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from compile.line import Line
    from compile.project import Project
    from parity.check import Outcome
    from registry.location import Location

T = TypeVar("T")
PASSED, FAILED, CONFIG, TOOLCHAIN, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 4, 130
ORDER = (CONFIG, TOOLCHAIN, FAILED, UNDECIDED, PASSED)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; all else on stderr.")
registry_option = click.option(
    "--registry", metavar="URL|DIR", help="MLflow server or folder; else MLFLOW_TRACKING_URI, else the embedded one."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lockstep")
def cli() -> None:
    """Compile one model for every kind of hardware, prove that edge and cloud agree, publish what passed."""


def main() -> None:
    """Run the command line; every stop becomes a message for a person and a code for CI."""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_TIMEOUT="60",
        GIT_PYTHON_REFRESH="quiet",
    )
    try:
        sys.exit(_run())
    except (KeyboardInterrupt, click.Abort):
        _stop("interrupted; what was finished is kept, the same command goes on from there", "Interrupted", INTERRUPTED)


def _run() -> int:
    try:
        result = cli(standalone_mode=False)
        return result if isinstance(result, int) else PASSED
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return CONFIG
    except OSError as error:
        return _stop(f"{error}; make room or grant access there and run the same command again", "OSError", TOOLCHAIN)
    except Exception as error:
        from compile.errors import ConfigError, LockstepError

        if not isinstance(error, LockstepError):
            raise
        return _stop(str(error), type(error).__name__, CONFIG if isinstance(error, ConfigError) else TOOLCHAIN)


def _stop(message: str, kind: str, code: int) -> int:
    click.echo(f"lockstep: {message}", err=True)
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": {"kind": kind, "message": message}, "exit": code}))
    if code == INTERRUPTED:
        sys.exit(code)
    return code


@cli.command()
@click.argument("model")
@registry_option
@json_option
def build(model: str, registry: str | None, as_json: bool) -> int:
    """Lower, quantize and compile MODEL for its targets."""
    from parity.check import build_all

    return _walk(model, registry, as_json, build_all)


@cli.command()
@click.argument("model")
@click.option("--observation", type=click.Path(path_type=Path), help="A bundle's observation, made on other hardware.")
@registry_option
@json_option
def check(model: str, observation: Path | None, registry: str | None, as_json: bool) -> int:
    """Observe MODEL's artifacts on the evaluation suite and judge them (builds what is not built)."""
    from parity.check import check as judge_all

    if observation is not None:
        from parity.bundle import accept

        _with_line(model, registry, as_json, lambda line: accept(line, observation))
    return _walk(model, registry, as_json, judge_all)


@cli.command()
@click.argument("model")
@registry_option
@json_option
def artifacts(model: str, registry: str | None, as_json: bool) -> int:
    """All of it: build, judge and publish MODEL. Does nothing, and says so, when nothing changed."""
    return _with_line(model, registry, as_json, lambda line: _artifacts(line, registry, as_json))


def _artifacts(line: Line, registry: str | None, as_json: bool) -> int:
    from parity.check import check as judge_all

    outcomes = judge_all(line)
    code = exit_code(line, outcomes)
    if code != PASSED:
        return _finish(line, outcomes, as_json, code, None)
    from registry.publish import publish, published
    from registry.release import assemble

    location = _location(line.project, registry)
    release = assemble(line, outcomes)
    version, created = published(location, release), False
    if version is None:
        done = publish(location, release)
        version, created = done.version, done.created
    facts = {
        "name": release.name,
        "version": version.number,
        "digest": release.digest,
        "registry": str(location),
        "created": created,
    }
    return _finish(line, outcomes, as_json, code, facts)


@cli.command()
@click.argument("model")
@click.option("--repair", is_flag=True, help="Put the judged bytes back where the registry's files were changed.")
@registry_option
@json_option
def publish(model: str, repair: bool, registry: str | None, as_json: bool) -> int:
    """Publish MODEL's release; refuses what was not judged or has changed since."""
    from parity.check import check as judge_all
    from registry import publish as publishing
    from registry.release import assemble

    def go(line: Line) -> int:
        from compile.errors import ConfigError

        line.dry = True
        outcomes = judge_all(line)
        if line.reasons:
            step, because = next(iter(line.reasons.items()))
            raise ConfigError(
                f"{model}: not judged, or changed since: {step}: {because[0]}. Run `lockstep check {model}`"
            )
        line.dry = False
        code = exit_code(line, outcomes)
        if code != PASSED:
            return _finish(line, outcomes, as_json, code, None)
        location = _location(line.project, registry)
        done = publishing.publish(location, assemble(line, outcomes), repair=repair)
        facts = {
            "name": model,
            "version": done.version.number,
            "digest": done.version.digest,
            "registry": str(location),
            "created": done.created,
        }
        return _finish(line, outcomes, as_json, code, facts)

    return _with_line(model, registry, as_json, go)


@cli.command()
@click.argument("name")
@click.argument("version")
@click.argument("channel")
@registry_option
@json_option
def promote(name: str, version: str, channel: str, registry: str | None, as_json: bool) -> int:
    """Point CHANNEL (candidate, staging, production) at a VERSION of NAME that passed."""
    from registry.promote import promote as point

    done = point(_location(_project_or_none(), registry), name, version, channel)
    facts = {"name": name, "version": done.number, "channel": channel, "digest": done.digest}
    return _say(as_json, facts, f"{name}@{channel} is now version {done.number} (sha256:{str(done.digest)[:12]})")


@cli.command()
@click.argument("wanted", metavar="NAME@VERSION|CHANNEL")
@click.option("--target", required=True, help="The target whose files to fetch.")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@registry_option
@json_option
def pull(wanted: str, target: str, folder: Path, registry: str | None, as_json: bool) -> int:
    """Fetch one target's files of a release, check every byte, then put them in place."""
    from registry.pull import pull as fetch
    from registry.reading import open_registry

    done = fetch(open_registry(_location(_project_or_none(), registry)), wanted, target, folder)
    facts = {
        "name": done.name,
        "version": done.version,
        "digest": done.digest,
        "target": target,
        "folder": str(done.folder),
        "fetched": done.fetched,
    }
    how = "pulled and verified" if done.fetched else "already there, verified again"
    return _say(as_json, facts, f"{done.name} version {done.version} for {target}: {how} in {done.folder}")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--run", is_flag=True, help="Also run the artifact's golden self-test on this machine.")
@json_option
def verify(folder: Path, run: bool, as_json: bool) -> int:
    """Check a pulled FOLDER: files against the manifest, the manifest against the digest, nothing added."""
    from registry.verify import verify as check_folder

    done = check_folder(folder)
    facts: dict[str, Any] = {
        "name": done.name,
        "version": done.version,
        "digest": done.digest,
        "target": done.target,
        "files": done.files,
    }
    lines = [f"{done.name} version {done.version} for {done.target}: {done.files} files are as published"]
    if run:
        from registry.golden import run as self_test

        facts["self_test"] = self_test(done.place(folder))
        lines.append(facts["self_test"])
    return _say(as_json, facts, "\n".join(lines))


@cli.command()
@click.argument("model")
@registry_option
@json_option
def why(model: str, registry: str | None, as_json: bool) -> int:
    """Say which input makes a step of MODEL run again, or that nothing changed."""
    from parity.why import why as explain

    def go(line: Line) -> int:
        now, last = explain(line)
        text = [f"{step}: {reason}" for step, reasons in now.items() for reason in reasons]
        text = text or [f"{model}: nothing changed; the next run does nothing"]
        text += ["", "why each step ran last:"] + [f"  {step}: {'; '.join(reasons)}" for step, reasons in last.items()]
        return _say(as_json, {"would_run": now, "last_ran": last}, "\n".join(text))

    return _with_line(model, registry, True, go)


@cli.command()
@click.argument("model", required=False)
@registry_option
@json_option
def status(model: str | None, registry: str | None, as_json: bool) -> int:
    """What is built, judged, published, and in which channel."""
    from registry.status import lines, status_of

    project = _project()
    location = _location(project, registry)
    models = [model] if model else _models(project)
    found = {name: status_of(project, name, location) for name in models}
    return _say(as_json, found, "\n".join(line for name in found for line in lines(name, found[name])))


@cli.command()
@json_option
def targets(as_json: bool) -> int:
    """What this machine can build and run; for what it cannot, the reason and the fix."""
    from compile.probe import lines, probe_all

    found = probe_all(_project())
    return _say(as_json, found, "\n".join(lines(found)))


@cli.command()
@click.argument("model")
@click.argument("target")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="The folder to make (bundle-MODEL-TARGET).")
@registry_option
@json_option
def bundle(model: str, target: str, folder: Path | None, registry: str | None, as_json: bool) -> int:
    """Make a folder to carry to the hardware that TARGET needs; its run gives an observation to judge here."""
    from parity.bundle import pack

    place = folder or Path(f"bundle-{model}-{target}")

    def go(line: Line) -> int:
        facts = pack(line, target, place)
        return _say(
            as_json,
            facts,
            f"{place}: copy it there, run `python3 run.py` in it, bring `observation` back, then\n"
            f"lockstep check {model} --observation {place}/observation",
        )

    return _with_line(model, registry, as_json, go)


@cli.command()
@click.argument("kind", type=click.Choice(["model", "target", "policy"]), required=False)
@json_option
def schema(kind: str | None, as_json: bool) -> int:
    """JSON Schema of the configs (all three, or one KIND)."""
    from compile.config import ModelFile, TargetFile
    from parity.policy import Policy

    kinds: dict[str, type[BaseModel]] = {"model": ModelFile, "target": TargetFile, "policy": Policy}
    found = {name: file.model_json_schema() for name, file in kinds.items() if kind in (None, name)}
    click.echo(json.dumps(found[kind] if kind else found, indent=2))
    return PASSED


@cli.command()
@click.argument("name")
@click.option("--from", "origin", required=True, metavar="FILE", help="An ONNX file, or a `.pt2` program.")
@json_option
def init(name: str, origin: str, as_json: bool) -> int:
    """Write configs/models/NAME.yaml from a model's own inputs and outputs."""
    from compile.init import write_config

    path = write_config(_project(), name, Path(origin))
    return _say(
        as_json, {"config": str(path)}, f"wrote {path}; fill in the lines marked TODO, then: lockstep artifacts {name}"
    )


def exit_code(line: Line, outcomes: Sequence[Outcome]) -> int:
    """The code of a run: the first of 2, 3, 1, 4, 0 that a required target gives."""
    from parity.policy import load_policy

    policy = load_policy(line.project, line.config.policy)
    codes = {_code(o.status, policy.allows_deferred(o.name)) for o in outcomes if o.use.required} | {PASSED}
    return next(code for code in ORDER if code in codes)


def _code(status: str, deferral_allowed: bool) -> int:
    if status == "DEFERRED":
        return PASSED if deferral_allowed else UNDECIDED
    return {"PASS": PASSED, "BUILT": PASSED, "FAIL": FAILED, "ERROR": TOOLCHAIN, "INCONCLUSIVE": UNDECIDED}[status]


def _walk(model: str, registry: str | None, as_json: bool, station: Callable[[Line], list[Outcome]]) -> int:
    def go(line: Line) -> int:
        outcomes = station(line)
        return _finish(line, outcomes, as_json, exit_code(line, outcomes), None)

    return _with_line(model, registry, as_json, go)


def _with_line(model: str, registry: str | None, quiet: bool, go: Callable[[Line], T]) -> T:
    from compile.line import Line
    from parity.progress import shown

    project = _project()
    with shown(quiet) as notify:
        line = Line.open(project, model, notify, _location(project, registry).tracking_uri)
        with line.locked():
            return go(line)


def _finish(line: Line, outcomes: Sequence[Outcome], as_json: bool, code: int, release: dict[str, Any] | None) -> int:
    from parity import report

    if as_json:
        click.echo(
            json.dumps(
                {
                    "model": line.model,
                    "ran": line.ran,
                    "targets": [report.document(o) for o in outcomes],
                    "release": release,
                    "exit": code,
                }
            )
        )
        return code
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, report.WIDTH)
    console.print(report.table(outcomes))
    for outcome in outcomes:
        for complaint in report.complaints(outcome):
            console.print(f"\n[bold]{outcome.name}[/] {outcome.status}: ", end="")
            console.print(complaint, markup=False)
    for text in _closing(line, code, release):
        console.print(text, markup=False)
    return code


def _closing(line: Line, code: int, release: dict[str, Any] | None) -> list[str]:
    """The last lines: what was published, whether anything ran, what to type next."""
    idle = "" if line.ran else "nothing to do: nothing changed since the last run\n"
    if release is None:
        return ["", idle + ("all required targets are fit" if code == PASSED else "not fit to publish")]
    name, version, me = release["name"], release["version"], _typed()
    first = "published" if release["created"] else "already published"
    idle = "" if release["created"] else idle
    edge = next((u.name for u in line.config.uses if u.name.startswith("edge")), line.config.uses[0].name)
    return [
        "",
        f"{idle}{first}: {name} version {version}, sha256:{release['digest']}, in {release['registry']}",
        "",
        "next:",
        f"  {me} promote {name} {version} staging",
        f"  {me} pull {name}@{version} --target {edge} --to ./{name}",
        f"  {me} verify ./{name} --run",
    ]


def _typed() -> str:
    """What to type for this command: its name where the shell would find it, else its path from here."""
    found = shutil.which("lockstep")
    mine = Path(sys.argv[0]).resolve()
    return "lockstep" if found and Path(found).resolve() == mine else os.path.relpath(mine)


def _say(as_json: bool, facts: Any, text: str) -> int:
    click.echo(json.dumps(facts) if as_json else text)
    return PASSED


def _project() -> Project:
    from compile.project import Project

    return Project.find(Path.cwd())


def _project_or_none() -> Project | None:
    """The project, for verbs that work outside of one when the registry is named."""
    from compile.errors import ConfigError

    try:
        return _project()
    except ConfigError:
        return None


def _location(project: Project | None, named: str | None) -> Location:
    from compile.errors import ConfigError
    from registry.location import locate

    environment = os.environ.get("MLFLOW_TRACKING_URI")
    if project is None and not (named or environment):
        raise ConfigError("which registry? Outside a project, give --registry URL|DIR or set MLFLOW_TRACKING_URI")
    return locate(named, environment, Path() if project is None else project.embedded_registry)


def _models(project: Project) -> list[str]:
    from compile.config import names_of

    return names_of(project, "models")


if __name__ == "__main__":
    main()
