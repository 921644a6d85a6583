"""Dossiers in a real browser: nothing overflows a phone, nothing is fetched, dark mode is dark, paper has pages."""

from __future__ import annotations

import html
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.dossier import page
from parity.dossier.change import Before
from parity.dossier.evidence import Cause, Planted, Rung, SelfTest, Tensor, Tolerance
from tests.parity.dossier_facts import HOSTILE, HUGE, dossier, finding, pair, target

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--hide-scrollbars", "--mute-audio",
)  # fmt: skip
PHONE, TABLET = 390, 1000
PROBE = """<body style="margin:0">{frames}<script>
window.onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument.documentElement;
    page.querySelectorAll("details").forEach(one => one.open = true);
    return {{name: frame.title, width: page.clientWidth, needs: page.scrollWidth,
      sideways: [...page.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth + 1).length,
      text: page.innerText.length, policy: getComputedStyle(page).colorScheme}};
  }});
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}};
</script>"""


@pytest.fixture(autouse=True)
def browser() -> None:
    """No skip: a page that nobody opened is not known to open."""
    assert CHROMIUM is not None, "chromium is not installed: apt-get install chromium (make test does it, as root)"


def run(folder: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def widths(pages: dict[str, Path], folder: Path, wide: int = PHONE) -> dict[str, tuple[int, int]]:
    """The width that each page needs in a frame so wide, as the browser lays it out, with every section open;
    and how many of its tables have to be scrolled sideways."""
    frames = "".join(
        f'<iframe title="{html.escape(name)}" src="{path.as_uri()}" style="border:0;width:{wide}px;height:844px"></iframe>'
        for name, path in pages.items()
    )
    (folder / "probe.html").write_text(PROBE.format(frames=frames))
    dumped = run(folder, "--allow-file-access-from-files", "--dump-dom", (folder / "probe.html").as_uri())
    found = json.loads(html.unescape(dumped.partition("FOUND")[2].partition("END")[0]))
    assert [one["width"] for one in found] == [wide] * len(pages)
    assert all(one["text"] > 0 for one in found)
    return {one["name"]: (one["needs"], one["sideways"]) for one in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of facts that try to break out: hostile and huge names, every kind of input, every fate."""
    folder = tmp_path_factory.mktemp("pages")
    tensors = tuple(Tensor(module=f"{HUGE[:80]}{i}", op="Conv", sqnr_db=40.0 - i, local_sqnr_db=None) for i in range(3))
    rung = Rung(name="quantized graph simulated", status="broke", why=HUGE[:300], differ=6, n=1000, sqnr_db=12.0)
    cause = Cause(missing=None, cause="quantization", explained=True, sentence=HUGE, rungs=(rung,), tensors=tensors)
    planted = [Planted(kind="a" * 90, size=s, planted=4, must_catch=3, caught=2, missed=1) for s in (0.01, 0.1, 0.3, 1)]
    tested = SelfTest(
        missing=None, planted=16, must_catch=12, caught=8, benign=9, false_alarms=0, kinds=tuple(planted),
        fixed=(Tolerance(tolerance="rtol 1e-3, atol 1e-5", caught=31, must_catch=31, false_alarms=9, benign=9),),
    )  # fmt: skip
    facts = dossier(
        target("told", cause=cause, selftest=tested, next=HUGE),
        target("edge", pairs=(pair(name="shirt"), pair("source", name=HOSTILE))),
        target("edge-" + "long-name-" * 12, "FAIL", findings=(finding("FAIL", "agreement " + "x" * 200, why=HUGE),)),
        target("huge", "FAIL", pairs=(pair(name=HUGE), pair("source", name="y" * 400))),
        target("broken", "ERROR", why="/" + "path/" * 200),
        description=HUGE,
        before=Before("version 1", dossier(target("told"), target("gone" * 30))),
    )
    (folder / "release.html").write_text(page.release(facts))
    for number, one in enumerate(facts.targets):
        (folder / f"{number}.html").write_text(page.target(facts, one))
    return folder


@pytest.mark.parametrize("wide", [PHONE, TABLET])
def test_no_page_and_no_table_is_wider_than_its_screen(mixed: Path, made: Path, tmp_path: Path, wide: int) -> None:
    real = sorted((mixed / "out" / "tiny" / "dossier").glob("*.html"))
    found = widths({str(path): path for path in (*real, *sorted(made.glob("*.html")))}, tmp_path, wide)
    assert len(found) == len(real) + 6
    assert set(found.values()) == {(wide, 0)}


def test_the_measure_of_width_finds_a_table_that_stays_a_table(made: Path, tmp_path: Path) -> None:
    """The check must be able to say no: the same page without its cards scrolls, and without its boxes it is too wide."""
    tables = (made / "0.html").read_text().replace("@media screen and (max-width:64rem)", "@media not all")
    (tmp_path / "tables.html").write_text(tables)
    (tmp_path / "broken.html").write_text(tables.replace("overflow-x:auto;max-width:100%", ""))
    found = widths({name: tmp_path / f"{name}.html" for name in ("tables", "broken")}, tmp_path)
    assert (found["tables"][0], found["tables"][1] > 0) == (PHONE, True)
    assert found["broken"][0] > PHONE + 50


def asked_for(path: Path, folder: Path) -> list[str]:
    """Every address off this machine that a page, not the browser itself, asked for: from the browser's own net log."""
    log = folder / "net.json"
    run(folder, f"--log-net-log={log}", "--dump-dom", path.as_uri())
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    started = [event for event in events if "url" in event and "initiator" in event]
    return sorted(
        {e["url"] for e in started if e["initiator"] != "not an origin" and e["url"].startswith(("http", "ws"))}
    )


def test_a_page_asks_the_network_for_nothing(mixed: Path, made: Path, tmp_path: Path) -> None:
    """The last page asks on purpose: it must be heard, and no other page."""
    (tmp_path / "asks.html").write_text('<img src="http://asks.invalid/on-purpose.png">')
    pages = [*sorted((mixed / "out" / "tiny" / "dossier").glob("*.html")), *sorted(made.glob("*.html"))]
    frames = "".join(f'<iframe src="{path.as_uri()}"></iframe>' for path in (*pages, tmp_path / "asks.html"))
    (tmp_path / "all.html").write_text(f"<body>{frames}")
    assert asked_for(tmp_path / "all.html", tmp_path) == ["http://asks.invalid/on-purpose.png"]


def test_the_pages_own_policy_stops_what_would_be_fetched(made: Path, tmp_path: Path) -> None:
    page_that_asks = (made / "0.html").read_text().replace("<main", '<img src="http://asks.invalid/x.png"><main')
    (tmp_path / "asks.html").write_text(page_that_asks)
    assert asked_for(tmp_path / "asks.html", tmp_path) == []


def picture(path: Path, folder: Path, *, dark: bool) -> np.ndarray:
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    shot = folder / "shot.png"
    run(folder, scheme, "--window-size=1280,900", f"--screenshot={shot}", path.as_uri())
    return np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"), np.float64)


def test_dark_mode_is_dark_and_light_mode_light(mixed: Path, tmp_path: Path) -> None:
    path = mixed / "out" / "tiny" / "dossier" / "release.html"
    light, dark = (picture(path, tmp_path, dark=dark) for dark in (False, True))
    assert light.shape == dark.shape == (900, 1280)
    assert np.median(light) > 230
    assert np.median(dark) < 40
    assert min(light.std(), dark.std()) > 10  # there is something on it


def test_a_page_prints(mixed: Path, tmp_path: Path) -> None:
    path = mixed / "out" / "tiny" / "dossier" / "edge-x86-onnxruntime.html"
    run(tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer", path.as_uri())
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") >= 2
