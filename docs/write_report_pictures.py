"""Takes the pictures of reports in docs/ with Chromium (`make report-pictures`).

docs/report.png shows the run of `make demo`. The second is of its model on questions of our own in
the files of MMLU, one domain for each of the 57 subjects. The third shows how a page looks with 94
layers of 128 experts; its numbers are made up (`tests/report/made_up.py`).
Pillow, which comes with vLLM, makes the files small.
"""

import argparse
import csv
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.mmlu_subjects import SUBJECTS
from tests.report.made_up import make_up
from tracer.datasets.mmlu import BUNDLED_MAP
from tracer.domain_map import load_domains
from tracer.report.html import render_report
from tracer.store.lake import Lake
from tracer.workflow.report import write_report

DOCS = Path(__file__).parent
PROMPTS = BUNDLED_MAP.parent / "prompts" / "demo.jsonl"
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


def write_questions(folder: Path) -> dict[str, str]:
    """Write five questions for each subject of MMLU, in the files of its release.

    They are the sentences of the bundled dataset, of the domain that the subject has there.

    Returns:
        Domain by subject: its own.
    """
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["domain"], []).append(row["prompt"])
    domains = load_domains(BUNDLED_MAP)
    (folder / "test").mkdir()
    for number, subject in enumerate(SUBJECTS):
        of_domain = texts[domains.get(subject, "Lang-Ling")]
        with (folder / "test" / f"{subject}_test.csv").open("w", encoding="utf-8") as file:
            for place in range(5):
                question = of_domain[(5 * number + place) % len(of_domain)]
                words = question.replace(".", "").split()[:4]
                csv.writer(file).writerow([question, *words, "A"])
    return {subject: subject for subject in SUBJECTS}


def mmlu_page(model: Path) -> str:
    """The report of a capture of those questions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        domains = write_questions(folder)
        words = ["capture", "--model", str(model), "--dataset", "mmlu", "--data-dir", name]
        words += ["--lake", str(folder / "lake"), "--run-id", "mmlu", "--max-tokens", "4"]
        subprocess.run([sys.executable, "-m", "tracer", *words, "--enforce-eager"], check=True)
        page = folder / "report.html"
        write_report(Lake.open(folder / "lake"), "mmlu", page, domains=domains)
        return page.read_text(encoding="utf-8")


def main() -> None:
    """Take all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", default="lake")
    parser.add_argument("--run", default="demo")
    parser.add_argument("--model", default="demo-model", type=Path)
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
        mmlu_page(asked.model),
        DOCS / "report-57-subjects.png",
        show=["#heatmap", "#jaccard"],
        choose=[["#heatmap [data-control=layer]", "2"]],
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
