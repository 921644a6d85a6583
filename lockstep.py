"""The front door: one `lockstep` command. Verbs parse, call one station, print, and exit with a code that CI can use.

Exit codes: 0 passed; 1 a verdict failed; 2 configuration or usage; 3 a toolchain, the registry or the machine failed; 4 could not
be judged; 130 interrupted. Of several, the first of 2, 3, 1, 4, 0 that occurred.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from compile.line import Line
    from compile.project import Project
    from parity.check import Outcome
    from registry.location import Location

Answer = Callable[[], int]
"""What a verb has to say, said when the live display is gone; gives the exit code."""
NEEDS_BUILD = "this verb needs the `build` extra: `make install` in the project, or pip install 'lockstep[build]'"
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
        MLFLOW_LOGGING_LEVEL="WARNING",
        GIT_PYTHON_REFRESH="quiet",
    )
    try:
        code = _run()
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # it is done: while Python tidies up, Ctrl-C would only change the code
        sys.exit(code)
    except (KeyboardInterrupt, click.Abort):
        from compile.errors import INTERRUPTED

        text = "interrupted; what was finished is kept, the same command goes on from there"
        sys.exit(_stop(text, "Interrupted", INTERRUPTED))


def _run() -> int:
    from compile.errors import CONFIG, TOOLCHAIN, ConfigError, LockstepError

    try:
        result = cli(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return _json_stop(error.format_message(), type(error).__name__, CONFIG)
    except ModuleNotFoundError as error:
        return _stop(f"{error.name} is not installed; {NEEDS_BUILD}", "ModuleNotFoundError", TOOLCHAIN)
    except OSError as error:
        return _stop(f"{error}; make room or grant access there and run the same command again", "OSError", TOOLCHAIN)
    except Exception as error:
        if not isinstance(error, LockstepError):
            raise
        return _stop(str(error), type(error).__name__, CONFIG if isinstance(error, ConfigError) else TOOLCHAIN)


def _stop(message: str, kind: str, code: int) -> int:
    message = message.replace(f"{Path.cwd()}/", "")
    click.echo(f"lockstep: {message}", err=True)
    return _json_stop(message, kind, code)


def _json_stop(message: str, kind: str, code: int) -> int:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": {"kind": kind, "message": message}, "exit": code}))
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
    from parity.bundle import accept
    from parity.check import check as judge_all

    def station(line: Line) -> list[Outcome]:
        if observation is not None:
            accept(line, observation)
        return judge_all(line)

    return _walk(model, registry, as_json, station, judged=True, voids=observation is None)


@cli.command()
@click.argument("model")
@registry_option
@json_option
def report(model: str, registry: str | None, as_json: bool) -> int:
    """Write MODEL's dossier: one page per release and per edge/cloud pair (judges what is not judged)."""
    from parity.check import check as judge_all

    return _walk(model, registry, as_json, judge_all, judged=True)


@cli.command()
@click.argument("model")
@click.argument("target")
@click.option("--artifact", type=click.Path(path_type=Path), help="Explain this artifact (an ONNX file, or a folder).")
@click.option(
    "--observation", type=click.Path(path_type=Path), help="Explain these answers (a folder with `outputs/`)."
)
@click.option("--rung", help="Show what this rung answers beside the source's answers.")
@click.option("--rows", default="0,1,2", help="The rows of the suite to show, as 17,203.")
@click.option("--minutes", default=5.0, type=click.FloatRange(0, min_open=True), help="Try hypotheses this long (5).")
@json_option
def explain(
    model: str,
    target: str,
    artifact: Path | None,
    observation: Path | None,
    rung: str | None,
    rows: str,
    minutes: float,
    as_json: bool,
) -> int:
    """Say at which step TARGET stops answering as MODEL's source does, why, and what helps (tried)."""
    from parity.explain.account import printed, rows_text, side_by_side
    from parity.explain.station import explain as find_cause

    def go(line: Line) -> Answer:
        found = find_cause(line, target, artifact, observation, minutes)
        code = 0 if found.explained else 1
        if rung is None:
            return lambda: _say(as_json, dict(found.document), printed(found)) or code
        shown = side_by_side(found, rung, _row_numbers(rows))
        return lambda: _say(as_json, shown, rows_text(shown))

    return _with_line(model, None, as_json, go)


def _row_numbers(rows: str) -> list[int]:
    try:
        return [int(row) for row in rows.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"found `{rows}`; expected row numbers, as 17,203", param_hint="--rows") from error


@cli.command()
@click.argument("model")
@click.argument("target")
@click.option("--seeds", default=3, type=click.IntRange(1), help="Planted graphs of each kind and size.")
@json_option
def selftest(model: str, target: str, seeds: int, as_json: bool) -> int:
    """Plant defects in TARGET of MODEL and count what the gate catches, and what it cries wolf at."""
    from parity.selftest.account import code, printed
    from parity.selftest.station import selftest as try_the_gate

    def go(line: Line) -> Answer:
        found = try_the_gate(line, target, seeds)
        return lambda: _say(as_json, found, printed(found)) or code(found)

    return _with_line(model, None, as_json, go)


@cli.command()
@click.argument("model")
@click.argument("target")
@click.option("--minutes", default=5.0, type=click.FloatRange(0, min_open=True), help="Search this long (5).")
@click.option("--in-place", is_flag=True, help="Edit MODEL's own config instead of writing MODEL-tuned.")
@json_option
def tune(model: str, target: str, minutes: float, in_place: bool, as_json: bool) -> int:
    """Find the fastest recipe for TARGET that passes MODEL's policy, on rows that the suite does not have."""
    from parity.tune.account import code, document, printed
    from parity.tune.station import tune as look

    def go(line: Line) -> Answer:
        found = look(line, target, minutes, in_place=in_place)
        return lambda: _say(as_json, document(found), printed(model, found)) or code(found)

    return _with_line(model, None, as_json, go)


@cli.command()
@click.argument("model")
@click.option("--flips", default=0.005, type=click.FloatRange(0, 0.5), help="Share of answers an equal model changes.")
@json_option
def plan(model: str, flips: float, as_json: bool) -> int:
    """Before any run: what MODEL's suite can and cannot decide, and the rows that each limit needs."""
    from dataclasses import asdict

    from parity.plan.account import lines
    from parity.plan.station import plan as look_ahead

    def go(line: Line) -> Answer:
        found = look_ahead(line, flips)
        return lambda: _say(as_json, {"targets": [asdict(one) for one in found]}, "\n".join(lines(found)))

    return _with_line(model, None, as_json, go)


@cli.command()
@click.argument("model")
@registry_option
@json_option
def artifacts(model: str, registry: str | None, as_json: bool) -> int:
    """All of it: build, judge, explain what differs, publish MODEL. Does nothing, and says so, when nothing changed."""
    from parity.check import check as judge_all
    from parity.explain.station import explain_all

    def go(line: Line) -> Answer:
        outcomes = judge_all(line)
        explain_all(line, outcomes)
        return _publish(line, outcomes, registry, as_json, trusting=True)

    return _with_line(model, registry, as_json, go, judged=True)


@cli.command()
@click.argument("model")
@click.option("--repair", is_flag=True, help="Put the judged bytes back where the registry's files were changed.")
@registry_option
@json_option
def publish(model: str, repair: bool, registry: str | None, as_json: bool) -> int:
    """Publish MODEL's release; refuses what was not judged or has changed since."""
    from registry.why import refuse_stale

    def go(line: Line) -> Answer:
        return _publish(line, refuse_stale(line), registry, as_json, repair=repair)

    return _with_line(model, registry, as_json, go)


@cli.command()
@click.argument("name")
@click.argument("version")
@click.argument("channel")
@click.option("--new", is_flag=True, help="Make a channel of another name than these three.")
@registry_option
@json_option
def promote(name: str, version: str, channel: str, new: bool, registry: str | None, as_json: bool) -> int:
    """Point CHANNEL (candidate, staging, production) at a VERSION of NAME that passed."""
    from registry.promote import promote as point

    done = point(_location(_project_or_none(), registry), name, version, channel, new=new)
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
    from registry.stores import open_registry

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
    from registry.why import lines
    from registry.why import why as explain

    def go(line: Line) -> Answer:
        found = explain(line, _location(line.project, registry))
        facts = {
            "would_run": found.now,
            "then": found.after,
            "published": found.published,
            "last_ran": found.last,
        }
        return lambda: _say(as_json, facts, "\n".join(lines(model, found)))

    return _with_line(model, registry, True, go)


@cli.command()
@click.argument("model", required=False)
@registry_option
@json_option
def status(model: str | None, registry: str | None, as_json: bool) -> int:
    """What is built, judged, published, and in which channel."""
    from registry.status import code, lines, status_of

    project = _project()
    location = _location(project, registry)
    models = [model] if model else _models(project)
    found = {name: status_of(project, name, location) for name in models}
    return _say(as_json, found, "\n".join(line for name in found for line in lines(name, found[name]))) or code(found)


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

    def go(line: Line) -> Answer:
        facts = pack(line, target, place)
        back = f"lockstep check {model} --observation {place}/observation"
        text = (
            f"{place}: copy it there, run `python3 run.py` in it (with numpy and the artifact's runtime installed), "
            f"bring `observation` back, then\n  {back}"
        )
        return lambda: _say(as_json, facts, text)

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
    return 0


@cli.command()
@click.argument("name")
@click.option("--from", "origin", required=True, metavar="FILE", help="An ONNX file.")
@json_option
def init(name: str, origin: str, as_json: bool) -> int:
    """Write configs/models/NAME.yaml from a model's own inputs and outputs."""
    from compile.init import write_config

    path = write_config(_project(), name, Path(origin))
    return _say(
        as_json,
        {"config": str(path)},
        f"wrote {path}; decide the lines marked TODO; then `lockstep plan {name}` says what the suite's rows can "
        f"decide, and `lockstep artifacts {name}` does it all",
    )


def _walk(
    model: str,
    registry: str | None,
    as_json: bool,
    station: Callable[[Line], list[Outcome]],
    *,
    judged: bool = False,
    voids: bool = True,
) -> int:
    """Bring a model to a station, and say what came of it; of what was judged there is a dossier.

    `voids`: a run that cannot be judged leaves none. A refused observation leaves the last verdict, and its dossier, as it was.
    """

    def go(line: Line) -> Answer:
        outcomes = station(line)
        dossier = _dossier(line, outcomes, registry) if judged else None
        return _ended(line, outcomes, _code(line, outcomes), as_json, dossier=dossier)

    return _with_line(model, registry, as_json, go, judged=judged and voids)


def _with_line(
    model: str, registry: str | None, quiet: bool, go: Callable[[Line], Answer], *, judged: bool = False
) -> int:
    """`go` on the model's line, with what happens shown meanwhile; its answer is said when the display is gone.

    `judged`: where a mistake in configuration or data keeps it from judging, the dossier of an earlier run goes.
    """
    from importlib.util import find_spec

    from compile.errors import ConfigError, ToolchainError
    from compile.line import Line
    from parity.dossier.station import void
    from parity.progress import shown

    project = _project()
    if find_spec("onnx") is None:
        raise ToolchainError(f"onnx is not installed; {NEEDS_BUILD}")
    try:
        with shown(quiet) as notify:
            line = Line.open(project, model, notify, _location(project, registry).tracking_uri)
            with line.locked():
                answer = go(line)
    except ConfigError as error:
        if judged:
            void(project.out(model) / "dossier", model, str(error).replace(f"{project.root}/", ""))
        raise
    return answer()


def _publish(
    line: Line,
    outcomes: list[Outcome],
    registry: str | None,
    as_json: bool,
    *,
    trusting: bool = False,
    repair: bool = False,
) -> Answer:
    """Publish what these outcomes allow; nothing where one of them forbids it.

    `trusting`: a version that a server lists counts as whole, for a run that has nothing to do; else all is read back.
    """
    from compile.errors import PASSED
    from registry.dossier import fit_release
    from registry.publish import Published, published
    from registry.publish import publish as put
    from registry.release import assemble

    code, dossier = _code(line, outcomes), _dossier(line, outcomes, registry)
    if code != PASSED:
        return _ended(line, outcomes, code, as_json, dossier=dossier)
    location = _location(line.project, registry)
    release = fit_release(line, outcomes) or assemble(line, outcomes)
    version = published(location, release, dossier) if trusting else None
    done = Published(version) if version is not None else put(location, release, dossier=dossier, repair=repair)
    return _ended(line, outcomes, code, as_json, published=done, location=location, dossier=dossier)


def _dossier(line: Line, outcomes: list[Outcome], registry: str | None) -> Path:
    from registry.dossier import dossier

    return dossier(line, outcomes, _location(line.project, registry))


def _ended(line: Line, outcomes: list[Outcome], code: int, as_json: bool, **release: Any) -> Answer:
    from registry.announce import Ending, say

    return lambda: say(Ending(line, outcomes, code, **release), as_json)


def _code(line: Line, outcomes: list[Outcome]) -> int:
    from parity.exit_code import of_outcomes
    from parity.policy import load_policy

    return of_outcomes(outcomes, load_policy(line.project, line.config.policy))


def _say(as_json: bool, facts: Any, text: str) -> int:
    click.echo(json.dumps(facts) if as_json else text)
    return 0


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
