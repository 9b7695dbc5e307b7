"""The page in a real browser: the figures are drawn, and nothing else happens."""

import dataclasses
import re
import shutil
import subprocess

import pytest

from tracer.report.html import render_report

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--dump-dom",
]
# Added to a copy of the page whose policy is taken out: uses every control, notes what it sees.
USE = """
<script>
const $ = (query) => document.querySelector(query);
const seen = {};
const note = (name, value) => { seen[name] = value; };
const pick = (query, value) => {
  $(query).value = value;
  $(query).dispatchEvent(new Event("change"));
};
const rows = () => [...$("#committees").tBodies[0].rows];
const column = () => rows().map((row) => row.cells[0].textContent).join();
const heads = $("#committees").tHead.rows[0].cells;
heads[6].querySelector("button").click();
note("density up", column());
heads[6].querySelector("button").click();
note("density down", column());
note("aria", heads[6].getAttribute("aria-sort"));
note("mean", $("#jaccard tbody").rows[1].cells[3].textContent);
pick("#jaccard select", "3");
note("layer 4", $("#jaccard tbody").rows[1].cells[3].textContent);
pick("#heatmap select", "1");
note("view", $("#heatmap .cells").dataset.view);
const cells = $("#heatmap .cells");
const key = (name) => cells.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
["ArrowRight", "ArrowRight"].forEach(key);
note("tip", $("#tip").textContent.replaceAll("\\n", "; "));
key("Escape");
note("tip hidden", String($("#tip").hidden));
const box = cells.getBoundingClientRect();
const spot = { clientX: box.left + 3, clientY: box.top + 26 };
cells.dispatchEvent(new PointerEvent("pointermove", spot));
note("hover", $("#tip").textContent.split("\\n")[0]);
$("#lorenz li").dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
note("lit", String($("#lorenz .lit .curve.on") !== null));
$("#tab-2").click();
note("panels", [$("#audit-1").hidden, $("#audit-2").hidden].join());
note("second drawn", String($("#heatmap-2 .cells").dataset.cells));
document.body.dataset.seen = JSON.stringify(seen);
</script>
"""


@pytest.fixture
def opened(tmp_path):
    """Open a page; give the document after its scripts ran, and the console's lines."""

    def _open(html):
        page = tmp_path / "report.html"
        page.write_text(html, encoding="utf-8")
        done = subprocess.run(
            [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return _open


def test_console_errors_are_seen_by_these_tests(opened):
    """The control: a page that fails and one whose policy is broken leave lines."""
    assert opened("<script>nope()</script>")[1]
    policy = "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">"
    assert opened(policy + "<script>document.title = 'ran'</script>")[1]


def test_figures_are_drawn_and_the_hostile_name_does_not_run(audit, run_row, opened):
    """Three layers x eight experts; four committee members; the second audit waits for its tab."""
    other = dataclasses.replace(audit, mode="reference", tokens="last-prompt")

    dom, console = opened(render_report([audit, other], run=run_row, tracer_version="1"))

    assert console == []
    assert 'data-ready="true"' in dom
    canvases = re.findall(r'<canvas class="cells"[^>]*>', dom)
    assert len(canvases) == 2
    for told in ('data-drawn="true"', 'data-cells="24"', 'data-outlined="4"'):
        assert told in canvases[0]
        assert told not in canvases[1]
    for name in ("jaccard", "lorenz"):
        assert re.search(rf'<figure id="{name}"[^>]* data-drawn="true"', dom)
    assert len(re.findall(r'<path class="curve ', dom)) == 6
    assert dom.count("<script") == 4


def test_controls_do_what_they_say(audit, run_row, opened):
    other = dataclasses.replace(audit, mode="reference")
    html = render_report([audit, other], run=run_row, tracer_version="1")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)

    dom, console = opened(html.replace("</body>", USE + "</body>"))

    assert console == []
    seen = re.search(r'data-seen="([^"]*)"', dom)[1].replace("&quot;", '"')
    for expected in (
        '"density up":"1,4,2"',
        '"density down":"2,1,4"',
        '"aria":"descending"',
        '"mean":"0.31"',
        '"layer 4":"0.25"',
        '"view":"law"',
        '"tip":"Layer 1, expert 1; law; Share of the layer: 28.57 %; ',
        'Contribution: 0.25; Rank 2 of 2"',
        '"tip hidden":"true"',
        '"hover":"Layer 1, expert 0, committee"',
        '"lit":"true"',
        '"panels":"true,false"',
        '"second drawn":"24"',
    ):
        assert expected in seen


def test_empty_audits_raise_no_error(audit, opened):
    empty = dataclasses.replace(
        audit, layers=[], contributions=[], overlaps=[], domains=[], num_domains=0
    )

    dom, console = opened(render_report([empty], run={}, tracer_version="1"))

    assert console == []
    assert 'data-ready="true"' in dom


def test_large_models_are_drawn_whole(made_up_audit, opened):
    """94 layers x 512 experts."""
    html = render_report([made_up_audit(94, 512, 2)], run={}, tracer_version="1")

    dom, console = opened(html)

    assert console == []
    assert f'data-cells="{94 * 512}"' in dom
