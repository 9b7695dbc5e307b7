"""The page as text: every number there, nothing from outside, nothing unescaped."""

import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from tracer.errors import DamagedDataError, InputError
from tracer.report.html import render_report

HOSTILE = "<script>alert(1)</script>"
NBSP = "\N{NO-BREAK SPACE}"


class Page(HTMLParser):
    """Elements, attributes, ids and the text of table cells, by table id."""

    VOID = frozenset({"meta", "rect", "path", "link", "img", "br"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.attributes = [], [], []
        self.rows = {}
        self.raw = {"script": [], "style": []}
        self.policy = None
        self._table = self._cell = self._raw = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if "id" in found:
            self.ids.append(found["id"])
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "table":
            self._table = self.rows.setdefault(found.get("id", "other"), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._cell = True
        elif tag in self.raw:
            self.raw[tag].append((found, ""))
            self._raw = tag

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None
        elif tag == self._raw:
            self._raw = None

    def handle_data(self, data):
        if self._raw:
            attributes, text = self.raw[self._raw][-1]
            self.raw[self._raw][-1] = (attributes, text + data)
        elif self._cell:
            self._table[-1][-1] = self._table[-1][-1] + data


def render(*audits, run=None):
    return render_report(audits, run=run or {}, tracer_version="1.2.3")


def test_one_row_per_layer_with_every_number_and_its_reference(audit, run_row):
    rows = Page(render(audit, run=run_row)).rows["committees"]

    cells = ["|".join(" ".join(cell.split()) for cell in row) for row in rows[1:]]
    assert cells == [
        "1|0|1|1.50|0.25|62.5 % 50.0 %|5.00 3.00|2|0.556 0.191|0.812",
        "2|0, 1|2|1.50|0.25|62.5 % 50.0 %|∞ ∞|2|0.556 0.191|0.812",
        "4|1|1|1.50|1.75|33.3 % 50.0 %|5.00 3.00|2 fallback|0.556 0.191|0.751",
    ]
    assert "present in ≥ 3 of 3" in rows[0][7]


def test_members_are_listed_with_presence_ranks_and_contribution(audit):
    rows = Page(render(audit)).rows["members"]

    assert [row[:2] for row in rows[1:]] == [["1", "0"], ["2", "0"], ["2", "1"], ["4", "1"]]
    assert rows[1][2:] == [f"100.0{NBSP}%", "1.50", "0.25", "0.3125"]


def test_every_figure_has_its_id_once_and_further_audits_a_suffix(audit):
    """Two audits: heatmap and heatmap-2, and no id twice."""
    other = dataclasses.replace(audit, mode="reference", tokens="last-prompt")

    page = Page(render(audit, other))

    figures = ("committees", "heatmap", "jaccard", "lorenz")
    assert {*figures, *(f"{name}-2" for name in figures)} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("canvas") == 4
    assert ("div", "role", "tablist") in page.attributes


def test_facts_of_the_run_are_told_and_unknown_ones_left_out(audit, run_row):
    facts = dict(row for row in Page(render(audit, run=run_row)).rows["other"] if len(row) == 2)

    assert facts["Engine"] == "vllm 0.32.0"
    assert facts["MoE layers"] == "1, 2, 4"
    assert facts["Chosen weights rescaled to sum to 1"] == "no"
    assert facts["Weight precision"] == "bf16: float32 rounded to bfloat16 precision"
    assert facts["Token scope"] == "prompt: every prompt token"
    assert "Model revision" not in facts


def test_domains_have_their_requests_and_tokens(audit):
    rows = Page(render(audit)).rows["other"]

    assert [HOSTILE, "20", "2,400"] in rows
    assert ["All", "35", "38,167"] in rows


def test_nothing_is_loaded_from_outside(audit, run_row):
    html = render(audit, run=run_row)
    page = Page(html)

    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    loading = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    leading = [found for found in page.attributes if found[1] in loading]
    assert leading == [("a", "href", "#summary")]
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_policy_admits_exactly_this_style_and_this_script(audit):
    page = Page(render(audit))

    [(_, style)] = page.raw["style"]
    [script] = [text for attributes, text in page.raw["script"] if "type" not in attributes]
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    assert page.policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}';"
        " base-uri 'none'; form-action 'none'"
    )
    assert not [found for found in page.attributes if found[1] == "style" or found[1][:2] == "on"]


def test_hostile_names_stay_text(audit, run_row):
    """In cells, options, attributes and JSON alike; the model name is hostile too."""
    quote = 'x" onmouseover="alert(2)'
    named = dataclasses.replace(audit, model=quote, run_id="</title><script>alert(3)</script>")

    html = render(named, run=run_row | {"model": quote, "dataset": HOSTILE})
    page = Page(html)

    assert HOSTILE not in html
    assert page.tags.count("script") == 3
    assert not [found for found in page.attributes if found[1].startswith("on")]
    data = json.loads({a.get("id"): text for a, text in page.raw["script"]}["data"])
    assert data["heatmap"]["views"] == ["Mean over domains", "law", HOSTILE, "code"]


def test_same_input_same_bytes(audit, run_row):
    assert render(audit, run=run_row) == render(audit, run=dict(reversed(run_row.items())))


def test_the_summary_puts_references_beside_the_numbers(audit):
    text = re.sub(r"\s+", " ", render(audit).replace("&#39;", "'"))

    assert "3 MoE layers were audited over 3 domains, counting every prompt token." in text
    assert "Sizes: 1 member in layers 1, 4; 2 members in layer 2." in text
    assert "In layer 4, though, no expert met that threshold" in text
    assert "a median 62.5 % (33.3 % to 62.5 %) of the contribution listed in their layer" in text
    assert "committees of these sizes would hold 50.0 %." in text
    assert "mean Jaccard index of 0.556" in text
    assert "two random sets of 2 out of 8 experts have 0.191 in expectation" in text
    assert text.count("Intervals and tests are not computed for this audit.") == 1


def test_a_run_that_goes_on_is_told_beside_the_summary(audit):
    words = "The run is not complete</strong> (status: running): not every request is recorded"

    assert words in render(dataclasses.replace(audit, run_status="running"))
    assert "The run is not complete" not in render(audit)


def test_truncation_is_told_in_reference_mode_only(audit):
    """k = 2 of E = 8: a Gini of 0.75 is built in."""
    reference = dataclasses.replace(audit, mode="reference")

    assert "<strong>0.750</strong>" in render(reference)
    assert "0.750" in Page(render(reference)).rows["committees"][1][-1]
    assert "a high Gini is built in" in render(reference)
    assert "a high Gini is built in" not in render(audit)


def test_last_prompt_scope_warns_of_the_template_token(audit):
    warned = "same template token"

    assert warned in render(dataclasses.replace(audit, tokens="last-prompt"))
    assert warned not in render(audit)


def test_one_domain_leaves_the_overlap_undefined(audit):
    layers = [dataclasses.replace(layer, jaccard_mean=math.nan) for layer in audit.layers]
    single = dataclasses.replace(
        audit,
        num_domains=1,
        domains=audit.domains[:1],
        layers=layers,
        overlaps=[],
        contributions=[c for c in audit.contributions if c.domain == "law"],
    )

    html = render(single)

    assert "no two domains to compare" in html
    assert "With one domain, ranks cannot vary" in html
    assert "n/a" in Page(html).rows["committees"][1][8]
    assert '"jaccard"' in html


@pytest.mark.parametrize(
    "missing",
    [
        {"layers": [], "contributions": [], "overlaps": []},
        {"contributions": [], "overlaps": []},
        {"domains": [], "contributions": [], "overlaps": [], "num_domains": 0},
        {"layers": [], "domains": [], "contributions": [], "overlaps": [], "num_experts": 0},
    ],
)
def test_empty_audits_make_a_page_with_every_figure(audit, missing):
    page = Page(render(dataclasses.replace(audit, **missing)))

    assert {"committees", "heatmap", "jaccard", "lorenz"} <= set(page.ids)


def test_a_layer_without_members_says_none(audit):
    empty = dataclasses.replace(audit.layers[0], committee=(), members=(), coverage=math.nan)

    html = render(dataclasses.replace(audit, layers=[empty, *audit.layers[1:]]))

    assert Page(html).rows["committees"][1][1] == "none"
    assert "2 layers have a standing committee" in html


def test_contradictory_and_missing_input_is_refused(audit):
    with pytest.raises(InputError, match="at least one audit"):
        render()
    with pytest.raises(InputError, match="about one run"):
        render(audit, dataclasses.replace(audit, run_id="run-2"))
    with pytest.raises(DamagedDataError, match="layer 4"):
        render(dataclasses.replace(audit, layers=audit.layers[:2]))


def test_size_stays_modest(made_up_audit):
    """48 layers x 128 experts x 9 domains, gate mode (nothing truncated): below 1 MB."""
    html = render(made_up_audit(48, 128, 9))

    assert len(html.encode()) < 1_000_000
