"""How a candidate stands to its policy on the tuning rows: every limit but the one on latency, which is taken alone.

In: folders of the source's and the candidate's answers on the tuning rows. Out: `quality.json`: what each limit gave, and the
limits that these rows cannot speak about. The rule: the limits are the policy's own, measured as the judge measures them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from compile.config import load_model, load_target
from compile.dataset import columns_of
from compile.project import Project
from parity import measure
from parity.judge import baseline_of, laws_of, limited
from parity.laws import Walk
from parity.limit import Limit
from parity.observed import read_observed
from parity.policy import Policy, load_policy
from parity.tune.record import write_quality
from parity.tune.trial import met
from parity.verdict import Status, overall


def judge(project: Project, made: Path, model: str, target: str, places: Mapping[str, str]) -> None:
    """The child's step. `places`: folders of suite (the tuning rows), source, observation, float; build and baseline
    where there is one."""
    config, target_file = load_model(project, model), load_target(project, target)
    policy = load_policy(project, config.policy)
    folders = {name: Path(place) for name, place in places.items()}
    source, candidate = read_observed(folders["source"], config), read_observed(folders["observation"], config)
    laws = laws_of(Walk(source, candidate))
    found, silent = [met(one) for one in laws], []
    if overall(laws) is Status.PASS:
        columns = columns_of(folders["suite"])
        bound = [limit for limit in policy.limits if target_file.precision in limit.precision]
        silent = [limit.metric for limit in bound if not _speaks(limit, columns, policy)]
        unbuilt = (
            ("size_ratio", "quantized_share") if "build" not in folders else ()
        )  # the source itself is no artifact
        apart = {"latency_ratio", *unbuilt, *silent}
        heard = [limit for limit in bound if limit.metric not in apart]
        walk, baseline = Walk(source, candidate), baseline_of(config, target_file, folders)
        routed = policy if any(limit.is_a.routed for limit in heard) else policy.model_copy(update={"route": None})
        scene = measure.scene(config, target_file, routed, walk, baseline, columns, folders)
        found += [met(finding) for limit in heard for finding in limited(limit, scene, routed)]
    write_quality(made, found, silent)


def _speaks(limit: Limit, columns: Collection[str], policy: Policy) -> bool:
    """Whether the tuning rows have the columns that a limit needs."""
    needed = {"labels"} if limit.is_a.labels or limit.metric == "correct" else set[str]()
    needed |= set(limit.by)
    if limit.is_a.routed and policy.route is not None and policy.route.payload is not None:
        needed.add(policy.route.payload.column)
    return needed <= set(columns)
