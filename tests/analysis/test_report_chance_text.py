"""An audit beside chance as table, CSV and JSON."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest

from tests.analysis.test_report_audit_text import AUDIT, FIRST
from tracer.analysis.layer_draws import STATISTICS
from tracer.records import AuditChance, DomainSpecificity, LayerChance, StatisticChance
from tracer.report.audit_text import render_csv, render_json, render_table

FOUND = "standing committee: agreement across domains beyond chance"
NUMBERS = (0.5, 0.4, 0.6, 0.2, 0.1, 0.3, 0.01, 0.02)


def layer_of(layer_id, membership, agreement, differences):
    numbers = {"influence_density": (2.0, 1.0, math.inf, 1.0, 0.5, math.inf, 0.5, math.nan)}
    return LayerChance(
        layer_id=layer_id,
        statistics=tuple(
            StatisticChance(*key, *numbers.get(key[0], NUMBERS)) for key in STATISTICS
        ),
        membership=membership,
        specificity=(DomainSpecificity("law", 14, StatisticChance(*STATISTICS[-1], *NUMBERS)),),
        agreement=agreement,
        differences=differences,
    )


CHANCE = AuditChance(
    draws=199,
    seed=7,
    level=0.95,
    alpha=0.05,
    layers=(
        layer_of(1, ((3, 0.9), (5, 0.25)), FOUND, "domains differ no more than by chance"),
        layer_of(
            2,
            ((9, 1.0), (12, 0.75), (3, 0.5), (0, 0.125)),
            "no more agreement than chance",
            "domains differ no more than by chance",
        ),
    ),
    agreement=FOUND,
    differences="domains differ no more than by chance",
)
DRAWN = replace(AUDIT, chance=CHANCE)
TABLE = """
layer       ECI        interval             ids      p         domains       p         Jaccard             ids   lift of           ids  task spec.         domains   members
       distance                       exchanged  agree       exchanged  differ        interval       exchanged  coverage     exchanged        mean       exchanged  in draws
    1     0.500  0.400 to 0.600  0.100 to 0.300  0.020  0.100 to 0.300   0.020  0.400 to 0.600  0.100 to 0.300      0.50  0.10 to 0.30       0.500  0.100 to 0.300   90%-90%
    2     0.500  0.400 to 0.600  0.100 to 0.300  0.020  0.100 to 0.300   0.020  0.400 to 0.600  0.100 to 0.300      0.50  0.10 to 0.30       0.500  0.100 to 0.300  12%-100%

199 draws of each kind, seed 7; p: one-sided, over all layers.
interval: 95 %, from requests drawn anew; members: in how many of those draws.
exchanged: middle 95 % by chance, of expert ids in each domain, or of domains over
requests.
agreement: standing committee: agreement across domains beyond chance (1 of 2 layers)
differences: domains differ no more than by chance (2 of 2 layers)
"""  # noqa: E501


def test_the_table_ends_with_chance_and_verdicts():
    assert render_table(DRAWN) == render_table(AUDIT) + TABLE


def test_the_table_of_reference_mode_says_what_it_lacks():
    text = render_table(replace(AUDIT, mode="reference"))
    assert "no intervals, chance levels, verdicts or task specificity: mode reference" in text
    assert "mode reference repeats" not in render_table(AUDIT)


def test_what_is_undefined_is_a_dash():
    nothing = StatisticChance("eci_distance", "experts", "less", *[math.nan] * 8)
    layers = tuple(
        replace(layer, statistics=(nothing, *layer.statistics[1:])) for layer in CHANCE.layers
    )
    text = render_table(replace(AUDIT, chance=replace(CHANCE, layers=layers)))
    assert re.search(r"^ +1 +- +- +- +- +0\.100 to 0\.300 ", text, re.MULTILINE)
    assert "nan" not in text


def test_csv_has_chance_behind_its_columns():
    plain = list(csv.DictReader(io.StringIO(render_csv(AUDIT))))
    drawn = list(csv.DictReader(io.StringIO(render_csv(DRAWN))))
    assert [{k: row[k] for k in plain[0]} for row in drawn] == plain
    row = drawn[0]
    assert list(row)[len(plain[0]) : len(plain[0]) + 8] == [
        "eci_distance",
        "eci_distance_low",
        "eci_distance_high",
        "eci_distance_chance",
        "eci_distance_chance_low",
        "eci_distance_chance_high",
        "eci_distance_p",
        "eci_distance_p_adjusted",
    ]
    assert [row[name] for name in ("jaccard_mean_low", "jaccard_mean_labels_p")] == ["0.4", "0.01"]
    assert row["task_specificity"] == "0.5"
    assert (row["influence_density_high"], row["influence_density_p_adjusted"]) == ("inf", "")
    assert (row["agreement"], row["differences"]) == (FOUND, CHANCE.differences)
    assert not any(name.startswith("eci_distance_labels_low") for name in row)


def test_reference_csv_stays_the_authors_file():
    reference = replace(AUDIT, mode="reference")
    assert render_csv(replace(reference, chance=CHANCE)) == render_csv(reference)


def test_json_has_chance_beside_what_it_had():
    plain = json.loads(render_json(AUDIT), parse_constant=pytest.fail)
    drawn = json.loads(render_json(DRAWN), parse_constant=pytest.fail)
    for before, after in zip(plain, drawn, strict=True):
        assert before["intervals"] is None
        assert {**after, "intervals": None} | before == {**after, "intervals": None}
    first = drawn[0]
    assert first["intervals"]["coverage"] == [0.4, 0.6]
    assert first["intervals"]["influence_density"] == [1.0, None]
    assert first["membership"][1] == {"expert_id": 5, "share_of_draws": 0.25}
    assert first["chance"][0] == {
        "statistic": "eci_distance",
        "null": "experts",
        "alternative": "less",
        "estimate": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance": 0.2,
        "chance_low": 0.1,
        "chance_high": 0.3,
        "p": 0.01,
        "p_adjusted": 0.02,
    }
    assert first["task_specificity"][0]["domain"] == "law"
    assert (first["draws"], first["seed"], first["alpha"]) == (199, 7, 0.05)
    assert (first["agreement"], first["run_agreement"]) == (FOUND, FOUND)


def test_reference_json_says_what_it_lacks():
    layers = (FIRST,)
    (row,) = json.loads(render_json(replace(AUDIT, mode="reference", layers=layers)))
    assert row["intervals"] is None
    assert row["intervals_left_out"].startswith("no intervals, chance levels, verdicts")
