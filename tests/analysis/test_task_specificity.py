"""Silhouettes from sums against silhouettes from every pair of requests."""

import math

import numpy as np
import pytest

from tracer.analysis.task_specificity import task_specificity, unit_vectors


def silhouettes_of_pairs(vectors, label, num_domains, counts=None):
    """Eq. 5 to 7 pair by pair; a request counted c times is c requests, none its own neighbour."""
    counts = np.ones(len(label), dtype=int) if counts is None else counts
    rows = [i for i, c in enumerate(counts) for _ in range(c) if vectors[i].any()]
    means = []
    for domain in range(num_domains):
        values = []
        for i in (i for i in rows if label[i] == domain):
            apart = {
                other: [
                    1 - vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(v)
                    for j in rows
                    if label[j] == other and j != i
                    for v in [vectors[j]]
                ]
                for other in range(num_domains)
            }
            others = [np.mean(d) for other, d in apart.items() if other != domain and d]
            if not others:
                values.append(math.nan)
            elif not apart[domain]:
                values.append(0.0)
            else:
                a, b = np.mean(apart[domain]), min(others)
                values.append((b - a) / max(a, b))
        means.append(np.mean(values) if values else math.nan)
    return means


@pytest.fixture
def vectors():
    """17 requests over 6 experts, one without any weight."""
    values = np.random.default_rng(2).random((17, 6))
    values[values < 0.3] = 0
    values[4] = 0
    return values


def test_a_hand_made_case():
    """Domain 0 has two requests on one expert, domain 1 one on another and one on both.

    Domain 0: a = 0, b = (1 + (1 - s)) / 2 > 0, so 1. Domain 1, s = sqrt(1/2): a = 1 - s for both;
    b = 1 for the first, 1 - s for the second, so s and 0, the mean s / 2."""
    units = unit_vectors(np.array([[2.0, 0], [1, 0], [0, 3], [1, 1]]))
    found = task_specificity(units, np.array([[0, 0, 1, 1]]), 2)
    assert found[0] == pytest.approx([1, math.sqrt(0.5) / 2])


def test_label_draws_are_those_of_all_pairs(vectors):
    """Three domains, the last of a single request."""
    rng = np.random.default_rng(3)
    first = np.array([0] * 9 + [1] * 7 + [2])
    labels = np.array([first, *(rng.permutation(first) for _ in range(8))])
    found = task_specificity(unit_vectors(vectors), labels, 3)
    for row, label in zip(found, labels, strict=True):
        expected = silhouettes_of_pairs(vectors, label, 3)
        assert row == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_copies_of_a_request_are_no_neighbours(vectors):
    rng = np.random.default_rng(4)
    label = np.array([0] * 9 + [1] * 6 + [2] * 2)
    weights = rng.poisson(1, (17, 12)).astype(np.uint8)
    found = task_specificity(unit_vectors(vectors), label[None], 3, weights)
    for row, counts in zip(found, weights.T, strict=True):
        expected = silhouettes_of_pairs(vectors, label, 3, counts)
        assert row == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(found[:, 2]).any()


def test_blocks_of_draws_give_what_all_give(vectors, monkeypatch):
    labels = np.random.default_rng(5).integers(0, 3, (20, 17))
    whole = task_specificity(unit_vectors(vectors), labels, 3)
    monkeypatch.setattr("tracer.analysis.task_specificity._CELLS", 17 * 3 * 7)
    assert np.array_equal(whole, task_specificity(unit_vectors(vectors), labels, 3))


def test_one_domain_has_no_specificity(vectors):
    assert np.isnan(task_specificity(unit_vectors(vectors), np.zeros((2, 17), int), 1)).all()
    alike = unit_vectors(np.ones((4, 3)))
    assert task_specificity(alike, np.array([[0, 0, 1, 1]]), 2).tolist() == [[0, 0]]
