"""Every rendering says the same facts, escapes what it is given, and shows each fate of a target."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from compile.errors import FAILED, PASSED, TOOLCHAIN, UNDECIDED, ConfigError
from parity.dossier import FACTS, SUPERSEDED, junit, page, summary
from parity.dossier.document import Dossier, parse, write
from parity.dossier.evidence import Cause, Rung, SecondCause, SelfTest, Tensor, Tolerance
from parity.dossier.station import void
from tests.parity.dossier_facts import HOSTILE, HUGE, LIMIT, POLICY, dossier, finding, pair, target

EVERY_FATE = dossier(
    target("cloud", role="cloud"),
    target("edge-fails", "FAIL", findings=(finding(), finding("FAIL", "correct", unit="points", used=3.0))),
    target("edge-open", "INCONCLUSIVE", findings=(finding("INCONCLUSIVE", needed=4000),)),
    target("edge-broken", "ERROR"),
    target("edge-waits", "DEFERRED", deferral_allowed=True),
    target("edge-optional", "FAIL", required=False, optional_because="a trial"),
)


class Reader(HTMLParser):
    """Every tag with its attributes, all text, and the tags that were not closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def pages(facts: Dossier) -> dict[str, str]:
    return {"release.html": page.release(facts)} | {t.page: page.target(facts, t) for t in facts.targets}


def test_facts_written_and_read_are_the_same_facts() -> None:
    assert parse(write(EVERY_FATE)) == EVERY_FATE
    infinite = dossier(target(findings=(finding(value=float("inf"), low=float("-inf"), high=float("inf")),)))
    assert parse(write(infinite)) == infinite


def test_facts_of_another_schema_are_refused() -> None:
    with pytest.raises(ConfigError, match="schema"):
        parse(write(EVERY_FATE).replace("lockstep.dossier/1", "lockstep.dossier/2"))


def test_the_same_facts_give_the_same_bytes() -> None:
    again = parse(write(EVERY_FATE))
    assert write(again) == write(EVERY_FATE)
    assert pages(again) == pages(EVERY_FATE)
    assert (junit.xml(again), summary.markdown(again)) == (junit.xml(EVERY_FATE), summary.markdown(EVERY_FATE))


@pytest.mark.parametrize("name", list(pages(EVERY_FATE)))
def test_a_page_is_whole_in_itself_and_can_be_read_aloud(name: str) -> None:
    text = pages(EVERY_FATE)[name]
    found = Reader(text)
    assert found.open == []
    assert text.startswith("<!DOCTYPE html>")
    links = [
        value for _, attrs in found.tags for key, value in attrs.items() if key in ("src", "href", "srcset", "action")
    ]
    assert links
    assert not [link for link in links if link and re.match(r"(?!data:)[a-z]+:|//|/", link)]
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    metas = [attrs for tag, attrs in found.tags if tag == "meta"]
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert any(m.get("name") == "viewport" for m in metas)
    tags = [tag for tag, _ in found.tags]
    assert (tags.count("main"), tags.count("h1"), tags.count("title")) == (
        1,
        1,
        1 + tags.count("svg") - svgs_hidden(found),
    )
    assert all(attrs.get("alt") for tag, attrs in found.tags if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in found.tags if tag == "th")
    ids = [attrs["id"] for _, attrs in found.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)


@pytest.mark.parametrize("name", list(pages(EVERY_FATE)))
def test_every_cell_of_a_table_carries_the_name_of_its_column(name: str) -> None:
    """Where a row is shown as a card, its header is out of sight."""
    text = pages(EVERY_FATE)[name]
    for table in re.findall(r'<div class="scroll".*?</table>', text, re.DOTALL):
        head, _, body = table.partition("</thead>")
        names = [re.sub("<[^>]+>", "", one) for one in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', head)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL):
            labels = re.findall(r'<td data-label="([^"]+)"', row)
            assert len(labels) == row.count("<td")
            assert row.lstrip().startswith('<th scope="row"')
            assert [n.partition(" (")[0] for n in names[1:]][: len(labels)] == [
                one.partition(" (")[0] for one in labels
            ]


def svgs_hidden(found: Reader) -> int:
    return sum(1 for tag, attrs in found.tags if tag == "svg" and attrs.get("aria-hidden") == "true")


def test_links_between_pages_lead_to_pages_that_exist() -> None:
    found = pages(EVERY_FATE)
    files = {*found, "dossier.json", "summary.md", "junit.xml"}
    for text in found.values():
        links = [attrs["href"] for tag, attrs in Reader(text).tags if tag == "a"]
        assert {link for link in links if link and not link.startswith("#")} <= files


def test_names_and_texts_of_data_are_shown_and_never_act() -> None:
    facts = dossier(target(pairs=(pair(name=HOSTILE), pair("source", name=HUGE))), model=HOSTILE)
    for text in pages(facts).values():
        assert "<script" not in text
        assert "alert(1)" in text
    assert "<script" not in summary.markdown(facts)
    assert "&lt;script&gt;" in summary.markdown(facts)
    root = ElementTree.fromstring(junit.xml(facts))
    assert HOSTILE in str(root.get("name"))


def test_a_message_that_xml_cannot_hold_leaves_the_report_well_formed() -> None:
    facts = dossier(target(status="ERROR", why="killed \x00 by \x1b[31m signal \ud800"))
    root = ElementTree.fromstring(junit.xml(facts).encode(errors="strict"))
    assert root.get("errors") == "1"


def test_the_report_has_a_case_for_each_limit_and_counts_them() -> None:
    root = ElementTree.fromstring(junit.xml(EVERY_FATE))
    suites = {str(s.get("name")).split(" / ")[1]: s for s in root.findall("testsuite")}
    assert list(suites) == [t.name for t in EVERY_FATE.targets]
    for one in EVERY_FATE.targets:
        assert len(suites[one.name].findall("testcase")) == max(len(one.findings), 1)
    assert {n: (s.get("failures"), s.get("errors"), s.get("skipped")) for n, s in suites.items()} == {
        "cloud": ("0", "0", "0"),
        "edge-fails": ("1", "0", "0"),
        "edge-open": ("0", "1", "0"),
        "edge-broken": ("0", "1", "0"),
        "edge-waits": ("0", "0", "1"),
        "edge-optional": ("0", "0", "1"),
    }
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("7", "1", "2", "2")


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (target(), PASSED),
        (target(status="FAIL"), FAILED),
        (target(status="INCONCLUSIVE"), UNDECIDED),
        (target(status="ERROR"), TOOLCHAIN),
        (target(status="DEFERRED"), UNDECIDED),
        (target(status="DEFERRED", deferral_allowed=True), PASSED),
        (target(status="FAIL", required=False, optional_because="a trial"), PASSED),
        (target(status="ERROR", required=False, optional_because="a trial"), PASSED),
    ],
    ids=lambda value: "" if isinstance(value, int) else f"{value.status}-{value.required}-{value.deferral_allowed}",
)  # fmt: skip
def test_the_report_is_red_exactly_where_lockstep_exits_nonzero(one: object, code: int) -> None:
    facts = dossier(target("cloud", role="cloud"), one)  # type: ignore[arg-type]
    root = ElementTree.fromstring(junit.xml(facts))
    assert facts.exit_code == code
    assert (int(str(root.get("failures"))) + int(str(root.get("errors"))) > 0) == (code != PASSED)


def test_the_first_screen_says_each_answer_in_a_word_and_an_icon() -> None:
    text = page.release(EVERY_FATE)
    first = text[: text.index("<nav")]
    words = re.sub(r"\s+", " ", "".join(Reader(text).text))
    assert "May this be shipped? No edge-broken could not be built or run" in words
    assert "Not yet: edge-open" in words
    assert "No: edge-fails" in words
    assert first.count("<svg") == 1 + sum(t.stand_in is not None for t in EVERY_FATE.targets)


def test_a_limit_that_could_not_be_measured_is_said_so_in_every_rendering() -> None:
    nothing = {"value": float("nan"), "low": float("-inf"), "high": float("inf"), "n": 0, "used": None}
    for unit in ("share", "points", "ratio", "dB", "floors"):
        one = target("edge", "INCONCLUSIVE", findings=(finding("INCONCLUSIVE", unit=unit, **nothing),))
        facts = parse(write(dossier(one)))
        assert "not measured" in page.target(facts, facts.targets[0])
        assert "could not be measured" in page.release(facts)
        assert "could not be measured" in summary.markdown(facts)
        assert "could not be measured" in junit.xml(facts)


def test_limits_that_were_edited_after_a_verdict_are_not_called_written_before_the_run() -> None:
    before = "The limits, written before the run."
    assert before in page.release(EVERY_FATE)
    earlier = POLICY.model_copy(update={"limits": (LIMIT.model_copy(update={"bound": 0.99}),)})
    edited = page.release(dossier(target(), judged_before=earlier))
    assert before not in edited
    assert "The limits of this run, 1 term edited after a verdict" in edited
    reworded = POLICY.model_copy(update={"limits": (LIMIT.model_copy(update={"why": "said otherwise"}),)})
    assert before in page.release(dossier(target(), judged_before=reworded))


def test_what_was_not_looked_for_says_the_command_and_is_not_left_out() -> None:
    text = page.target(EVERY_FATE, EVERY_FATE.targets[1])
    assert "lockstep explain" in text
    assert "lockstep selftest" in text
    assert "Error against depth" in text


def test_a_cause_its_depth_and_a_self_test_are_shown_where_they_were_found() -> None:
    tensors = tuple(Tensor(module=f"layer{i}", op="Conv", sqnr_db=40 - 5 * i, local_sqnr_db=45) for i in range(4))
    cause = Cause(
        missing=None, cause="quantization", explained=True, sentence="layer3 is what int8 cannot hold",
        rungs=(Rung(name="quantized", status="broke", why="", differ=6, n=1000, sqnr_db=12.0),), tensors=tensors,
        first=tensors[1], worst=tensors[3], suggestion="keep layer3 in float", reproduce="python again.py",
    )  # fmt: skip
    tested = SelfTest(
        missing=None, planted=40, must_catch=31, caught=30, benign=9, false_alarms=0,
        fixed=(Tolerance(tolerance="1e-5", caught=31, must_catch=31, false_alarms=9, benign=9),),
    )  # fmt: skip
    one = target(cause=cause, selftest=tested)
    text = page.target(dossier(one), one)
    assert "layer3 is what int8 cannot hold" in text
    assert "Lowest at layer3: 25.0 dB" in text
    assert "To reproduce: <code>python again.py</code>" in text
    alike = target(cause=cause, pairs=(pair(differ=0), pair("source", 0)))
    assert "To reproduce" not in page.target(dossier(alike), alike), "there is nothing to see side by side"
    assert "Of 40 planted faults 31 break the policy and had to be caught; 30 of those were" in text
    assert "1e-5" in text
    assert "30 of 31" in page.release(dossier(one))
    assert "30 of 31 planted faults caught, 0 of 9 healthy ones refused" in summary.markdown(dossier(one))


def found_twice(*, explained: bool) -> Cause:
    kind, told = (
        ("quantization", "six ranges are narrow") if explained else ("unexplained", "7.0% of the error are left")
    )
    second = SecondCause(cause=kind, sentence=f"{told} <b>", remedy="calibrate again" if explained else None)
    return Cause(
        missing=None, cause="fusion", explained=explained, sentence="a kernel rounds once less.", second=second
    )


@pytest.mark.parametrize(
    ("explained", "says"),
    [(True, "quantization: six ranges are narrow"), (False, "unexplained: 7.0% of the error are left")],
)
def test_a_second_cause_stands_behind_the_first_in_every_rendering(explained: bool, says: str) -> None:
    one = target("edge", cause=found_twice(explained=explained))
    facts = parse(write(dossier(one)))
    text = page.target(facts, facts.targets[0])
    [section] = re.findall(r'<h2 id="cause">.*?<h2', text, re.DOTALL)
    words = "".join(Reader(section[:-3]).text)
    assert f"A second cause remains: {says} <b>" in words
    assert ("To mend it: calibrate again" in words) == explained
    assert "<b>" not in text
    for other in (page.release(facts), summary.markdown(facts)):
        assert f"rounds once less. A second cause remains: {says} &lt;b&gt;" in other
    assert one.stand_in is not None
    assert one.stand_in.word == ("yes" if explained else "no")


def test_where_nothing_remains_no_second_cause_is_spoken_of() -> None:
    one = target("edge", cause=found_twice(explained=True).model_copy(update={"second": None}))
    facts = dossier(one)
    for text in (page.target(facts, one), page.release(facts), summary.markdown(facts)):
        assert "second cause" not in text


def test_what_differs_alike_beside_source_and_cloud_is_shown_once() -> None:
    cloud = pair()
    source = cloud.model_copy(update={"against": "source", "other": "source"})
    text = page.target(dossier(target(pairs=(cloud, source))), target(pairs=(cloud, source)))
    assert (text.count("Inputs that are answered differently"), text.count("<h3>Worst slices</h3>")) == (1, 1)
    assert "These are the very images that are answered differently" in text
    other = source.model_copy(update={"flips": source.flips[1:]})
    again = page.target(dossier(target(pairs=(cloud, other))), target(pairs=(cloud, other)))
    assert again.count("Inputs that are answered differently") == 2


def test_a_command_can_be_copied_from_the_summary_and_markup_of_data_stays_text() -> None:
    assert (
        summary.text("carry it with `lockstep bundle my_model edge`") == "carry it with `lockstep bundle my_model edge`"
    )
    assert summary.text("a_b `x|y` `<b>`") == r"a\_b \`x\|y\` \`&lt;b&gt;\`"


def test_markdown_tables_have_as_many_cells_in_every_row() -> None:
    rows = [line for line in summary.markdown(EVERY_FATE).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(EVERY_FATE.targets)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_only_a_dossier_is_voided_and_twice_is_as_once(tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "dossier"
    for place in (other, folder):
        place.mkdir()
        (place / "mine.html").write_text("yes")
    (folder / FACTS).write_text("{}")
    for _ in range(2):
        void(other, "m", "the suite holds a NaN")
        void(folder, "m", "the suite holds a NaN")
    assert [path.name for path in other.iterdir()] == ["mine.html"]
    assert {path.name for path in folder.iterdir()} == {SUPERSEDED, "summary.md", "junit.xml", "release.html"}
    assert "the suite holds a NaN" in (folder / "summary.md").read_text()


def test_a_first_run_that_cannot_be_judged_tells_ci_and_a_mistyped_name_makes_no_folder(tmp_path: Path) -> None:
    first, mistyped = tmp_path / "m" / "dossier", tmp_path / "n" / "dossier"
    first.parent.mkdir()
    for why in ("the suite holds a NaN", "the labels say nothing"):
        void(first, "m", why)
        void(mistyped, "n", why)
    assert {path.name for path in first.iterdir()} == {"summary.md", "junit.xml", "release.html"}
    text = (first / "release.html").read_text()
    assert "No verdict" in text
    assert "the labels say nothing" in text
    assert set(re.findall(r'href="([^"#]+)"', text)) == {"summary.md", "junit.xml"}, "no link to what is not there"
    assert not mistyped.parent.exists()
    root = ElementTree.parse(first / "junit.xml").getroot()
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    assert "the labels say nothing" in (first / "summary.md").read_text()


def test_a_case_keeps_its_name_when_another_slice_is_the_worst() -> None:
    def names(worst: str, *by: tuple[str, ...]) -> list[str | None]:
        found = tuple(finding(metric=f"agreement in {worst}", of="worst_slice", by=columns) for columns in by)
        root = ElementTree.fromstring(junit.xml(dossier(target(findings=found))))
        return [case.get("name") for case in root.iter("testcase")]

    columns = ("class_name", "brightness"), ("confidence of the reference",), ()
    one = names("the worst of 13 slices (class_name = coat)", *columns)
    assert one == names("the only slice (class_name = shirt)", *columns)
    assert len(set(one)) == len(columns)
    assert one[0] == "agreement in the worst slice by class_name, brightness against source: at least 98 %"
