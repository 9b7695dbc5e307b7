"""Takes the pictures of reports in docs/ with Chromium (`make report-pictures`).

docs/report.png shows the run of `make demo`. The two others show how a page looks with 57 domains,
and with 94 layers of 128 experts; their numbers are made up (`tests/report/made_up.py`).
Pillow, which comes with vLLM, makes the files small.
"""

import argparse
import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from tests.mmlu_subjects import SUBJECTS
from tests.report.made_up import make_up
from tracer.report.html import render_report
from tracer.store.lake import Lake
from tracer.workflow.report import write_report

DOCS = Path(__file__).parent
LARGEST = 300_000  # bytes of a picture
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
CHROMIUM += ["--disable-quic", "--no-first-run", "--disable-background-networking"]
CHROMIUM += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=5000"]
# Leaves the sections on the picture, chooses in them, and says how high they are.
SHOW = """<script>
for (const section of document.querySelectorAll("section, footer, .note, details.data")) {
  section.hidden = %s.every((name) => !section.querySelector(name) && !section.matches(name));
}
for (const [query, value] of %s) {
  const select = document.querySelector(query);
  select.value = value;
  select.dispatchEvent(new Event("change"));
}
document.body.dataset.high = String(Math.ceil(document.documentElement.scrollHeight));
</script>"""


def take(html: str, picture: Path, *, show: list[str], choose: list[list[str]], width: int) -> None:
    """Write the picture of some sections of a page.

    Args:
        html: the page; its policy is taken out of the copy that is shown.
        picture: the file.
        show: what the sections to be shown hold.
        choose: controls and the values they are given.
        width: of the window, pixels.
    """
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    html = html.replace("</body>", f"{SHOW % (show, choose)}</body>")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(html, encoding="utf-8")
        words = [*CHROMIUM, f"--user-data-dir={folder}/profile"]
        seen = subprocess.run(
            [*words, f"--window-size={width},600", "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r'data-high="(\d+)"', seen)
        if found is None:
            raise SystemExit(f"{picture.name}: the page was not drawn")
        size = f"--window-size={width},{found[1]}"
        subprocess.run(
            [*words, size, f"--screenshot={picture}", page.as_uri()],
            capture_output=True,
            check=True,
        )
    # Few colours are in it, and a palette makes a third of the bytes.
    small = Image.open(picture).convert("RGB").quantize(160, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)
    weight = picture.stat().st_size
    if weight > LARGEST:
        raise SystemExit(f"{picture.name} has {weight:,} bytes, over {LARGEST:,}")
    print(f"{picture.name}: {weight / 1e3:.0f} kB")  # noqa: T201


def made_up_page(num_layers: int, num_experts: int, domains: list[str]) -> str:
    """A report of a made-up run, which says so."""
    audit = make_up(num_layers, num_experts, max(len(domains), 9), names=tuple(domains))
    audit = dataclasses.replace(audit, model="a made-up model", run_id="made-up")
    return render_report([audit], run={}, tracer_version="0.1.0")


def main() -> None:
    """Take all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", default="lake")
    parser.add_argument("--run", default="demo")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(Lake.open(asked.lake), asked.run, page)
        take(
            page.read_text(encoding="utf-8"),
            DOCS / "report.png",
            show=["#summary", "#committees", "#heatmap", "#coverage", "#jaccard"],
            choose=[],
            width=1180,
        )
    take(
        made_up_page(16, 64, SUBJECTS),
        DOCS / "report-57-subjects.png",
        show=["#heatmap", "#jaccard"],
        choose=[["#heatmap [data-control=layer]", "8"]],
        width=1000,
    )
    take(
        made_up_page(94, 128, []),
        DOCS / "report-94-layers.png",
        show=["#heatmap", "#coverage"],
        choose=[],
        width=1000,
    )


if __name__ == "__main__":
    main()
