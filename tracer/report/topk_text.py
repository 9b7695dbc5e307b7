"""The table of lists that the authors' COMMITTEEAUDIT code makes between routing and committees."""

import csv
import io
from collections import defaultdict

from tracer.records import Audit

__all__ = ["render_topk"]


def render_topk(audit: Audit) -> str:
    """CSV of an audit in `reference` mode: a row per layer and domain, the list it holds.

    Columns: domain, idx (layer), topk_mean, topk_values (by descending value, 4 decimals) and
    topk_indices (expert ids), the last two joined by ", ". The authors take the mean before they
    round the values, this takes it after: at most 5e-5 lie between.

    source: github The-FinAI/CommitteeAudit be5c1d7, get_frequency_and_weight_data.py
    """
    lists = defaultdict(list)
    for one in audit.contributions:
        if one.rank <= audit.rank_cutoff:
            lists[one.layer_id, one.domain].append((one.rank, one.contribution, one.expert_id))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["domain", "idx", "topk_mean", "topk_values", "topk_indices"])
    for (layer_id, domain), entries in sorted(lists.items()):
        entries.sort()
        values = [value for _, value, _ in entries]
        writer.writerow(
            [
                domain,
                layer_id,
                sum(values) / len(values),
                ", ".join(str(value) for value in values),
                ", ".join(str(expert) for _, _, expert in entries),
            ]
        )
    return text.getvalue()
