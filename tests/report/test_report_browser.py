"""The page in a real browser: the figures are drawn, and nothing else happens."""

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from html import unescape as html_text

import pytest

from tracer.report.html import render_report

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script>"
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
pick("#heatmap [data-control=layer]", "2");
note("one layer", [cells.dataset.view, cells.dataset.cells, cells.dataset.outlined].join());
key("ArrowRight");
key("End");
note("far", $("#tip").textContent.split("\\n").slice(0, 2).join());
const block = (name) => $(`details[data-table="${name}"]`);
note("closed", String(block("contributions").querySelector("table") === null));
block("contributions").open = true;
pick("#heatmap [data-control=layer]", "all");
const blobs = [];
URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
HTMLAnchorElement.prototype.click = function () { blobs.at(-1).name = this.download; };
const get = (name, as) => block(name).querySelector(`[data-as=${as}]`).click();
["contributions", "jaccard", "lorenz", "coverage", "members"].forEach((name) => get(name, "csv"));
["contributions", "coverage"].forEach((name) => get(name, "json"));
$("#tab-2").click();
note("panels", [$("#audit-1").hidden, $("#audit-2").hidden].join());
note("second drawn", String($("#heatmap-2 .cells").dataset.cells));
const done = () => {
  note("table", [...block("contributions").querySelectorAll("tr")[1].cells].map(
    (cell) => cell.textContent).join());
  document.body.dataset.seen = JSON.stringify(seen);
};
Promise.all(blobs.map((blob) => blob.text())).then((texts) => {
  document.body.dataset.files = JSON.stringify(blobs.map((blob, i) => [blob.name, texts[i]]));
  requestAnimationFrame(() => setTimeout(done, 50));
});
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
    seen = html_text(re.search(r'data-seen="([^"]*)"', dom)[1])
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
        '"one layer":"Layer 4,32,4"',
        '"far":"Layer 4, expert 7,Mean over domains"',
        '"closed":"true"',
        '"table":"1,expert 0: 57.14 % *,expert 1: 28.57 %"',
        '"panels":"true,false"',
        '"second drawn":"24"',
    ):
        assert expected in seen
    check_files(dict(json.loads(html_text(re.search(r'data-files="([^"]*)"', dom)[1]))))


def check_files(files):
    """What the buttons save: every view, layer and expert; every pair; the chart's own numbers."""
    name = "run-1-gate-prompt-{}"
    rows = list(csv.DictReader(io.StringIO(files[name.format("contributions.csv")])))
    assert len(rows) == 4 * 3 * 8
    law = next(r for r in rows if (r["domain"], r["layer"], r["expert"]) == ("law", "1", "1"))
    assert law == {
        "domain": "law",
        "layer": "1",
        "expert": "1",
        "share": "0.285714",
        "contribution": "0.25",
        "rank": "2",
        "member": "false",
    }
    assert {r["domain"] for r in rows} == {"Mean over domains", "law", "code", HOSTILE}
    objects = json.loads(files[name.format("contributions.json")])
    assert objects[0].keys() == rows[0].keys()
    assert len(objects) == len(rows)
    pairs = list(csv.DictReader(io.StringIO(files[name.format("jaccard.csv")])))
    assert len(pairs) == 4 * 3
    found = {
        (r["layer"], r["domain"], r["other domain"]): (r["Jaccard"], r["expected of random sets"])
        for r in pairs
    }
    assert found["4", HOSTILE, "code"] == ("0.25", "0.1905")
    curve = list(csv.reader(io.StringIO(files[name.format("lorenz.csv")])))
    assert (len(curve), curve[1], curve[9]) == (1 + 3 * 9, ["1", "0", "0"], ["1", "1", "1"])
    assert json.loads(files[name.format("coverage.json")])[2] == {
        "layer": 4,
        "equal weights (reference, not chance)": 0.5,
        "coverage": 0.3333,
    }
    assert files[name.format("coverage.csv")].splitlines()[-1] == "4,0.5,0.3333"
    assert files[name.format("members.csv")].splitlines()[1] == "1,0,1,1.5,0.25,0.3125"


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


def test_many_domains_are_a_canvas_and_token_roles_a_table(made_up_audit, opened):
    """57 subjects: a table of all pairs would be wider than any page."""
    roles = {
        "columns": ["layer_id", "expert_id", "token_id", "token"],
        "rows": [[0, 3, 5, "\n"], [0, 4, 6, HOSTILE], [1, 3, 5, "x"]],
    }
    audit = made_up_audit(2, 16, 57)

    dom, console = opened(render_report([audit], run={}, tracer_version="1", token_roles=roles))

    assert console == []
    assert f'data-cells="{57 * 57}"' in dom
    tokens = dom[dom.index('id="token-roles"') : dom.index('id="token-data"')]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", tokens) == [
        *("3", "5", '"\\n"'),
        *("4", "6", '"&lt;script&gt;alert(1)&lt;/script&gt;"'),
    ]
