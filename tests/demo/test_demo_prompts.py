"""Rules of the bundled prompts, checked without tracer."""

import re
from collections import Counter

import pytest
from planted_checks import read_prompts

DOMAINS = [
    "STEM-Math",
    "STEM-Physics",
    "STEM-Chemistry",
    "STEM-BioMed",
    "CS-Eng",
    "SocSci",
    "Humanities",
    "Lang-Ling",
    "Biz-Law",
]


@pytest.fixture(scope="module")
def rows():
    return read_prompts()


@pytest.fixture(scope="module")
def homes(rows):
    """For each word, the domains it occurs in."""
    found = {}
    for row in rows:
        for word in re.findall(r"[A-Za-z]+", row["prompt"]):
            found.setdefault(word.lower(), set()).add(row["domain"])
    return found


def test_nine_domains_with_enough_prompts(rows):
    counts = Counter(row["domain"] for row in rows)
    assert list(counts) == DOMAINS
    assert min(counts.values()) >= 24


def test_ids_and_prompts_are_unique(rows):
    assert all(set(row) == {"id", "domain", "prompt"} for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["prompt"] for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(re.escape(row["domain"].lower()) + r"-\d\d", row["id"])


def test_form_of_each_prompt(rows):
    for row in rows:
        assert re.fullmatch(r"[A-Z][a-z]*(,? [A-Za-z]+)+", row["prompt"]), row
        assert 10 <= len(row["prompt"].split()) <= 18, row


def test_last_word_belongs_to_its_domain(rows, homes):
    for row in rows:
        assert homes[row["prompt"].split()[-1].lower()] == {row["domain"]}, row


@pytest.mark.parametrize("domain", DOMAINS)
def test_most_words_belong_to_the_domain(rows, homes, domain):
    words = [
        word.lower()
        for row in rows
        if row["domain"] == domain
        for word in re.findall(r"[A-Za-z]+", row["prompt"])
    ]
    assert sum(len(homes[word]) == 1 for word in words) >= 0.55 * len(words)


def test_each_prompt_has_enough_words_of_its_domain(rows, homes):
    for row in rows:
        words = row["prompt"].replace(",", "").lower().split()
        assert sum(len(homes[word]) == 1 for word in words) >= 0.5 * len(words), row


def test_sentences_do_not_share_openings(rows):
    openings = Counter(tuple(row["prompt"].lower().split()[:3]) for row in rows)
    assert max(openings.values()) <= 2
