"""Judging what only other hardware can run: a folder goes there, an observation comes back, the verdict is given here.

The bundle is the worker's own job folder: `worker.py`, `target.py`, `job.json`, the artifact, its float twin, the
suite's inputs. `python3 run.py` in it writes `observation/`. The rule: an observation is taken only if the digests it
read there are those of the artifact and the suite here, and its outputs are the bytes that its own list names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from compile import build, digest, toolchain
from compile.config import load_target, toolchain_file
from compile.errors import ConfigError, IntegrityError, nearest
from compile.line import Line
from compile.step import replace
from parity import observe

DOCUMENT = "bundle.json"
RUN = '''"""Observe this bundle's artifact here: python3 run.py (needs numpy and the artifact's runtime)."""
import subprocess, sys
from pathlib import Path
here = Path(__file__).resolve().parent
sys.exit(subprocess.call([sys.executable, "-I", "-B", str(here / "worker.py"), str(here), "carry"]))
'''


def pack(line: Line, name: str, folder: Path) -> dict[str, Any]:
    """Write the bundle of one target to `folder`, which must not exist yet; gives what it holds."""
    names = [use.name for use in line.config.uses]
    if name not in names:
        at = f"configs/models/{line.model}.yaml"
        raise ConfigError(f"{at}: `{name}` is not one of its targets: {', '.join(names)}{nearest(name, names)}")
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; name another folder with --to")
    target, suite, compiled = load_target(line.project, name), build.data(line, "suite"), build.artifact(line, name)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copytree(compiled.folder / "artifact", part / "artifact")
    shutil.copytree(suite.folder / "batches", part / "batches")
    twin = build.float_twin(line, name) if target.precision == "int8" else None
    if twin is not None:
        shutil.copytree(twin.folder / "artifact", part / "twin")
    shutil.copy(toolchain.WORKER, part / "worker.py")
    shutil.copy(toolchain_file(target.toolchain), part / "target.py")
    job = toolchain.job_document(line, target, precision=target.precision, again=True)
    job |= {"target_file": "target.py", "twin": None if twin is None else "twin"}
    (part / "job.json").write_text(json.dumps(job, indent=1, sort_keys=True))
    (part / "run.py").write_text(RUN)
    facts = {
        "model": line.model,
        "target": name,
        "artifact": digest.of_tree(digest.of_files(part / "artifact")),
        "suite inputs": digest.of_tree(digest.of_files(part / "batches")),
    }
    (part / DOCUMENT).write_text(json.dumps(facts, indent=1, sort_keys=True))
    part.rename(folder)
    return facts | {"folder": str(folder)}


def accept(line: Line, observation: Path) -> str:
    """Take an observation made elsewhere for the target that it names; the next judging uses it."""
    name = verified(line, observation)
    made = line.out / "targets" / name / ".carried"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(observation, made)
    replace(made, observe.carried_folder(line, name))
    return name


def verified(line: Line, observation: Path) -> str:
    """The target that an observation made elsewhere is of; raises where it is not of this artifact and this suite."""
    try:
        document = json.loads((observation / "observation.json").read_text())
        model, name, made_from = document["model"], document["target"], dict(document["digests"])
        listed, _ = dict(document["outputs"]), (dict(document["seconds"]), document["fingerprint"]["cpu"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{observation}: no observation of a bundle ({error!r}); expected the folder that run.py wrote"
        ) from error
    if model != line.model or name not in [use.name for use in line.config.uses]:
        raise ConfigError(f"{observation}: it observes {model} on {name}; not a target of {line.model}")
    _same_digests(line, name, made_from, observation)
    found = digest.of_files(observation / "outputs")
    if found != listed or not found:
        raise IntegrityError(
            f"{observation}: its outputs are not those that its run listed; bring the folder over again"
        )
    return str(name)


def _same_digests(line: Line, name: str, made_from: dict[str, str], observation: Path) -> None:
    """IntegrityError where the observation speaks of another artifact or another suite."""
    here = observe.digests(line, name)
    for what, wanted in here.items():
        if made_from.get(what) != wanted:
            raise IntegrityError(
                f"{observation}: it observed another {what} (digest {str(made_from.get(what))[:12]}; here {wanted[:12]}). "
                f"Make a new bundle: lockstep bundle {line.model} {name}"
            )
