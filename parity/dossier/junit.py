"""The facts as JUnit XML: a suite for each target, a case for each limit, red exactly where lockstep exits nonzero.

FAIL is a `failure`; INCONCLUSIVE, and a target that could not be built or run, is an `error`: nobody knows, and CI must
stop as lockstep does. What stops nothing is `skipped` with its reason: a deferral that the policy allows, and every limit
that a target which is not required misses.
"""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from compile import percent
from parity.dossier import figures
from parity.dossier.document import Dossier, FindingFact, Target
from parity.dossier.judged import Judged

ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) cannot hold."""


def xml(dossier: Dossier) -> str:
    """The document; well-formed whatever names and messages hold."""
    root = ElementTree.Element("testsuites", name=_legal(f"lockstep {dossier.model}"))
    for target in dossier.targets:
        suite = ElementTree.SubElement(root, "testsuite", name=_legal(f"{dossier.model} / {target.name}"))
        for found in target.findings:
            _case(suite, dossier, target, found)
        if not target.findings:
            _unjudged(suite, dossier, target)
    return _document(root, *root)


def not_judged(model: str, why: str) -> str:
    """The document of a run that came to no verdict: one case, an error."""
    root = ElementTree.Element("testsuites", name=_legal(f"lockstep {model}"))
    suite = ElementTree.SubElement(root, "testsuite", name=_legal(model))
    case = ElementTree.SubElement(suite, "testcase", classname=_legal(model), name="judged")
    _add(case, "error", why.splitlines()[0], why)
    return _document(root, suite)


def _document(root: ElementTree.Element, *suites: ElementTree.Element) -> str:
    for element in (*suites, root):
        _count(element)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, dossier: Dossier, target: Target, found: FindingFact) -> None:
    case = _named(suite, dossier, target, f"{_asked(found)} against {found.against}: {figures.limit(found)}")
    if found.status == "PASS":
        return
    message = Judged(found, (figures.opposite(found.against, target.baseline_used),)).sentence
    if not target.required:
        _add(case, "skipped", f"{found.status}, not required ({target.optional_because}): {message}", "")
    else:
        _add(case, "failure" if found.status == "FAIL" else "error", message, _behind(found))


def _asked(found: FindingFact) -> str:
    """What is asked, in words that stay from run to run: CI follows a case by its name, and the worst slice changes."""
    if found.of != "worst_slice":
        return found.metric
    return "agreement in the worst slice" + (f" by {', '.join(found.by)}" if found.by else "")


def _behind(found: FindingFact) -> str:
    """What the message rests on: rows, groups and confidence, and why the policy asks for it."""
    if found.unit == "breaches":
        return "a law: no policy lifts it"
    if math.isnan(found.value):
        return f"{found.sentence}\nwhy: {found.why}"
    rows = f"n = {figures.count(found.n)}" + (
        "" if found.groups is None else f" in {figures.count(found.groups)} groups"
    )
    sure = (
        "" if found.confidence is None or found.low == found.high else f", {percent.whole(found.confidence)} confidence"
    )
    return f"{rows}{sure}\nwhy: {found.why}"


def _unjudged(suite: ElementTree.Element, dossier: Dossier, target: Target) -> None:
    """One case for a target without a single finding."""
    case = _named(suite, dossier, target, "judged")
    why = target.why or "nothing was judged"
    if not target.required:
        _add(case, "skipped", f"{target.status}, not required ({target.optional_because}): {why}", "")
    elif target.status == "DEFERRED" and target.deferral_allowed:
        _add(case, "skipped", f"DEFERRED, as the policy allows: {why}", "")
    else:
        _add(case, "error", f"{target.status}: {why.splitlines()[0]}", why)


def _named(suite: ElementTree.Element, dossier: Dossier, target: Target, name: str) -> ElementTree.Element:
    where = f"{dossier.model}.{target.name}"
    return ElementTree.SubElement(suite, "testcase", classname=_legal(where), name=_legal(name), time="0")


def _add(case: ElementTree.Element, kind: str, message: str, text: str) -> None:
    part = ElementTree.SubElement(case, kind, message=_legal(message))
    part.text = _legal(text) or None


def _count(element: ElementTree.Element) -> None:
    element.set("tests", str(len(list(element.iter("testcase")))))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        element.set(name, str(len(list(element.iter(kind)))))


def _legal(text: str) -> str:
    return ILLEGAL.sub("\ufffd", text)
