"""An audit as table, CSV and JSON; whole outputs are compared."""

import json
import math
from dataclasses import replace

import pytest

from tracer.records import Audit, AuditDomain, CommitteeMember, LayerAudit
from tracer.report.audit_text import render_csv, render_json, render_table


def member(expert_id, rank_mean, rank_var, contribution_mean):
    return CommitteeMember(expert_id, 1.0, rank_mean, rank_var, contribution_mean)


FIRST = LayerAudit(
    layer_id=1,
    committee=(3,),
    members=(member(3, 4 / 3, 2 / 9, 0.25),),
    rank_mean=4 / 3,
    rank_var=2 / 9,
    coverage=0.337349,
    coverage_equal_weight=0.25,
    influence_density=32.0727,
    influence_density_equal_weight=21.0,
    num_candidates=3,
    fallback_used=False,
    jaccard_mean=0.75,
    jaccard_random=0.0343,
    gini=0.9,
)
SECOND = replace(
    FIRST,
    layer_id=2,
    committee=(9, 12, 3, 0),
    rank_mean=4.0,
    rank_var=2.148,
    coverage=1.0,
    coverage_equal_weight=1.0,
    influence_density=math.inf,
    influence_density_equal_weight=math.inf,
    fallback_used=True,
    jaccard_mean=math.nan,
)
AUDIT = Audit(
    run_id="r1",
    run_status="complete",
    model="models/olmoe",
    mode="gate",
    tokens="prompt",
    min_presence=0.8,
    presence_threshold=3,
    rank_cutoff=4,
    num_experts=64,
    num_experts_inferred=None,
    top_k=4,
    num_domains=3,
    num_unlabelled=0,
    requests_by_status={"complete": 18},
    domains=(
        AuditDomain("law", 14, 8136, 8136, 0),
        AuditDomain("bio\n\x1b[31mred", 3, 12, 12, 0),
        AuditDomain("x" * 60, 1, 1, 1, 0),
    ),
    layers=(FIRST, SECOND),
    contributions=(),
    overlaps=(),
)

TABLE = """\
run r1, model models/olmoe
mode gate, tokens prompt
n = 3 domains, k = 4 (rank cutoff), E = 64 experts
candidates: in the list of at least 3 of 3 domains (min presence 0.8)

domain                                            requests  tokens
law                                                     14   8,136
bio\\n\\x1b[31mred                                         3      12
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...         1       1

layer  committee     size  rank  rank   coverage  equal-weight  influence  equal-weight  Jaccard  Jaccard   Gini
       by mean rank   |C|  mean   var  of listed     reference    density     reference     mean   random
    1  3                1  1.33  0.22      0.337         0.250      32.07         21.00    0.750    0.034  0.900
    2  9 12 3 0*        4  4.00  2.15      1.000         1.000        inf           inf        -    0.034  0.900

equal-weight reference: |C|/k and (E-|C|)/(k-|C|), what coverage and influence density
would be if all listed weights were equal; no chance level.
* fallback: no expert passed, those listed in most domains are candidates.
"""  # noqa: E501


def test_the_table():
    assert render_table(AUDIT) == TABLE


def test_the_table_says_that_the_run_goes_on():
    first, _ = render_table(replace(AUDIT, run_status="running")).split("\n", 1)
    assert first == "run r1, model models/olmoe (running: not every request is recorded yet)"


def test_the_table_says_that_e_is_inferred_and_cuts_long_committees():
    layer = replace(FIRST, committee=tuple(range(12)))
    text = render_table(
        replace(AUDIT, mode="reference", num_experts=60, num_experts_inferred=64, layers=(layer,))
    )
    assert "E = 60 experts (64 inferred, used in influence density)" in text
    assert "0 1 2 3 4 5 6 7 +4 " in text
    assert "fallback" not in text


def test_reference_csv_is_the_file_of_the_authors():
    """Layers 1 and 2 print as 0 and 1; whole numbers keep a decimal; infinity is inf."""
    assert render_csv(replace(AUDIT, mode="reference")) == (
        "Layer,Committee,Size,Avg_mu,Avg_sigma_sq,Coverage,Ratio\n"
        "0,3,1,1.33,0.22,0.3373,32.07\n"
        '1,"9, 12, 3, 0",4,4.0,2.15,1.0,inf\n'
    )


@pytest.mark.parametrize("layer_id", [0, 2])
def test_reference_csv_shifts_layers_only_if_the_smallest_is_one(layer_id):
    audit = replace(AUDIT, mode="reference", layers=(replace(FIRST, layer_id=layer_id), SECOND))
    rows = render_csv(audit).splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(layer_id), "2"]


def test_gate_csv():
    assert render_csv(AUDIT) == (
        "layer_id,committee,committee_size,rank_mean,rank_var,coverage,coverage_equal_weight,"
        "coverage_lift,influence_density,influence_density_equal_weight,num_candidates,"
        "fallback_used,jaccard_mean,jaccard_random,gini,missing_prompt_share\n"
        "1,3,1,1.3333333333333333,0.2222222222222222,0.337349,0.25,1.349396,32.0727,21.0,3,"
        "false,0.75,0.0343,0.9,0.0\n"
        '2,"9, 12, 3, 0",4,4.0,2.148,1.0,1.0,1.0,inf,inf,3,true,,0.0343,0.9,0.0\n'
    )


def test_json_is_strict():
    first, second = json.loads(render_json(AUDIT), parse_constant=pytest.fail)
    assert first == {
        "run_id": "r1",
        "run_status": "complete",
        "mode": "gate",
        "tokens": "prompt",
        "num_domains": 3,
        "num_unlabelled": 0,
        "template_tokens": None,
        "requests_by_status": {"complete": 18},
        "num_prompt_tokens": 8149,
        "num_missing_prompt_tokens": 0,
        "missing_prompt_share": 0.0,
        "rank_cutoff": 4,
        "num_experts": 64,
        "num_experts_inferred": None,
        "top_k": 4,
        "min_presence": 0.8,
        "presence_threshold": 3,
        "layer_id": 1,
        "committee": [3],
        "committee_size": 1,
        "rank_mean": 4 / 3,
        "rank_var": 2 / 9,
        "coverage": 0.337349,
        "coverage_equal_weight": 0.25,
        "coverage_lift": 1.349396,
        "influence_density": 32.0727,
        "influence_density_equal_weight": 21.0,
        "num_candidates": 3,
        "fallback_used": False,
        "jaccard_mean": 0.75,
        "jaccard_random": 0.0343,
        "gini": 0.9,
        "members": [
            {
                "expert_id": 3,
                "presence": 1.0,
                "rank_mean": 4 / 3,
                "rank_var": 2 / 9,
                "contribution_mean": 0.25,
            }
        ],
        "intervals": None,
    }
    undefined = [name for name, value in second.items() if value is None]
    assert undefined == [
        "template_tokens",
        "num_experts_inferred",
        "influence_density",
        "influence_density_equal_weight",
        "jaccard_mean",
        "intervals",
    ]
    assert (second["committee"], second["fallback_used"]) == ([9, 12, 3, 0], True)


def test_report_imports_no_analysis():
    import subprocess
    import sys

    code = (
        "import sys, tracer.report.audit_text;"
        "bad = [m for m in sys.modules if m.startswith(('tracer.analysis', 'duckdb', 'polars'))];"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
