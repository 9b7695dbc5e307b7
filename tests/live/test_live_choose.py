"""Which requests are chosen, under which labels, and what a hostile request can not do."""

import hashlib
import hmac
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.live.choose import MAX_VALUE, Chooser, Chosen
from tracer.live.config import LiveConfig
from tracer.live.status import Counts

KEY = b"0123456789abcdef"


def chooser(**settings):
    return Chooser(LiveConfig(lake="l", **settings))


def chosen_of(some, ids, extra=None):
    return {name for name in ids if some.choose(name, extra) is not None}


IDS = [f"chatcmpl-{number}" for number in range(4000)]


def test_a_rate_is_kept_and_the_same_ids_are_chosen_again():
    first = chosen_of(chooser(rate=0.25), IDS)
    assert first == chosen_of(chooser(rate=0.25), IDS)
    assert abs(len(first) - 1000) < 110  # four standard deviations of a binomial


def test_a_smaller_rate_chooses_among_those_of_a_greater_one():
    some = chooser(rate=0.5)
    half = chosen_of(some, IDS)
    some.set_rate(0.1)
    tenth = chosen_of(some, IDS)
    assert tenth < half
    some.set_rate(None)
    assert chosen_of(some, IDS) == half


@pytest.mark.parametrize(("rate", "number"), [(0.0, 0), (1.0, 4000)])
def test_nothing_and_everything(rate, number):
    assert len(chosen_of(chooser(rate=rate), IDS)) == number


def test_servers_of_other_names_choose_other_requests():
    a, b = (chosen_of(chooser(rate=0.5, name=name), IDS) for name in ("a", "b"))
    assert 800 < len(a & b) < 1200


def test_the_first_rate_of_a_label_that_matches_counts():
    some = chooser(
        rate=0,
        label_rates={"tenant": {"acme": 0.0, "beta": 1.0}, "domain": {"maths": 1.0}},
    )
    assert some.choose("r", {}) is None
    assert some.choose("r", {"tracer_domain": "maths"}) == Chosen("maths", {}, "label")
    both = {"tracer_domain": "maths", "tracer_label_tenant": "acme"}
    assert some.choose("r", both) is None
    # A label may choose without being kept.
    assert some.choose("r", {"tracer_label_tenant": "beta"}) == Chosen("none", {}, "label")


@pytest.mark.parametrize(
    ("opt", "wish", "reason"),
    [
        ("out", None, None),
        ("out", 1, None),
        ("out", 0, "declined"),
        ("out", "no", "declined"),
        ("out", "nonsense", "declined"),
        ("out", [1], "declined"),
        ("out", 7, "declined"),
        ("in", None, "not_asked"),
        ("in", 1, None),
        ("in", "TRUE", None),
        ("in", True, None),
        ("in", 0, "declined"),
        ("in", 1.0, "declined"),
        ("all", 0, None),
        ("all", None, None),
    ],
)
def test_asking_and_declining(opt, wish, reason):
    some = chooser(opt=opt)
    found = some.choose("r", None if wish is None else {"tracer_capture": wish})
    assert (found is None) == (reason is not None)
    assert some.counts.left_out == ({reason: 1} if reason else {})
    assert (some.counts.seen, some.counts.chosen) == (1, 0 if reason else 1)


def test_asking_does_not_raise_the_rate():
    assert chooser(rate=0, opt="in").choose("r", {"tracer_capture": 1}) is None


def test_labels_that_are_kept_and_those_that_are_not():
    some = chooser(labels=["tenant", "team"])
    found = some.choose(
        "r",
        {
            "tracer_label_team": " red ",
            "tracer_label_tenant": 12,
            "tracer_label_other": "x",
            "session_id": "not ours",
        },
    )
    assert found == Chosen("none", {"team": "red", "tenant": "12"}, "rate")
    assert some.counts.refused_values == {"not_kept": 1}


def test_hashes_depend_on_key_and_label(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    some = chooser(
        labels=["tenant", "user"],
        hash_labels=["tenant", "user", "domain"],
        hash_key_file=file,
        label_rates={"tenant": {"acme": 1.0}},
        rate=0,
    )
    found = some.choose(
        "r", {"tracer_label_tenant": "acme", "tracer_label_user": "acme", "tracer_domain": "acme"}
    )
    expected = hmac.new(KEY, b"tenant=acme", hashlib.sha256).hexdigest()[:32]
    assert found.labels["tenant"] == expected
    assert len({found.labels["tenant"], found.labels["user"], found.domain}) == 3
    assert "acme" not in f"{found} {some.counts}"


def test_domains_of_a_list_only():
    some = chooser(domains=["maths"])
    assert some.choose("r", {"tracer_domain": "maths"}).domain == "maths"
    assert some.choose("r", {"tracer_domain": "law"}).domain == "none"


def test_so_many_domains_and_no_more():
    some = chooser()
    found = {some.choose("r", {"tracer_domain": f"d{n}"}).domain for n in range(1500)}
    assert len(found) == 1001
    assert some.counts.refused_values == {"too_many": 500}
    assert some.choose("r", {"tracer_domain": "d3"}).domain == "d3"


HOSTILE = [
    "x" * (MAX_VALUE + 1),
    "x" * 5_000_000,
    "a\nb",
    "a\x00b",
    "\x1b[2J",
    "a\u202eb",
    "a\u200bb",
    "\ud800",
    "\u2028",
    "",
    "   ",
    "\ufdfa" * MAX_VALUE + "y",
    "\U0001d15e" * MAX_VALUE,  # grows when it is normalised
    {"nested": {"json": 1}},
    [["x"] * 1000] * 1000,
    ["acme"],
    None,
    10**400,
    b"bytes",
    object(),
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_what_is_no_short_plain_text_is_counted_and_left_out(value):
    some = chooser(labels=["tenant"])
    found = some.choose("r", {"tracer_label_tenant": value, "tracer_domain": value})
    assert found == Chosen("none", {}, "rate")
    assert some.counts.refused_values == {"value": 2}


KEPT_AS_TEXT = ["../../etc/passwd", "a/b\\c", "'; DROP TABLE runs; --", "%s{0}$domain", "<script>"]


@pytest.mark.parametrize("value", KEPT_AS_TEXT)
def test_text_that_looks_like_code_stays_text(value):
    found = chooser(labels=["t"]).choose("r", {"tracer_label_t": value, "tracer_domain": value})
    assert found == Chosen(value, {"t": value}, "rate")


def test_the_same_letters_are_the_same_label():
    some = chooser(labels=["t"])
    assert len({some.choose("r", {"tracer_label_t": v}).labels["t"] for v in ("é", "e\u0301")}) == 1


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "domain", "A", "t" * 40, "t\n", "", "t;drop", "t" * 1_000_000]
)
def test_a_label_that_no_configuration_names_is_no_key(name):
    found = chooser(labels=["t"]).choose("r", {f"tracer_label_{name}": "x"})
    assert found.labels == {}


def test_a_request_of_very_many_keys_is_read_up_to_a_bound():
    some = chooser(labels=["t"])
    extra = {f"k{n}": n for n in range(100_000)} | {"tracer_label_t": "x"}
    assert some.choose("r", extra).labels == {}
    assert some.counts.refused_values == {"too_many": 1}


class Odd(dict):
    def get(self, *_):
        raise RuntimeError

    items = get


def test_nothing_raises_into_serving():
    some = chooser(opt="in")
    for extra in (None, [], "tracer_capture", 3, Odd(), {1: 2}):
        assert some.choose("r", extra) is None
    assert some.choose(None, {"tracer_capture": 1}) is None
    assert some.counts.left_out == {"not_asked": 5, "error": 2}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KEYS = st.text() | st.sampled_from(
    ["tracer_capture", "tracer_domain", "tracer_label_t", "tracer_label_", "tracer_labels"]
)


@settings(deadline=None, max_examples=200)
@given(extra=st.dictionaries(KEYS, JSON), request_id=st.text())
def test_whatever_is_sent_the_answer_is_bounded_printable_text(extra, request_id):
    counts = Counts()
    some = Chooser(LiveConfig(lake="l", labels=["t"]), counts)
    found = some.choose(request_id, extra)
    assert counts.seen == counts.chosen + sum(counts.left_out.values()) == 1
    assert "error" not in counts.left_out
    if found is not None:
        assert set(found.labels) <= {"t"}
        for text in (found.domain, *found.labels.values()):
            assert 0 < len(text) <= MAX_VALUE
            assert all(
                letter.isprintable() or letter == "\u3000" or letter.isspace() for letter in text
            )
            text.encode()


def test_a_decision_takes_microseconds():
    import timeit

    some = chooser(rate=0.5, labels=["tenant"])
    extra = {"tracer_label_tenant": "acme", "tracer_domain": "maths"}
    seconds = min(timeit.repeat(lambda: some.choose("chatcmpl-1", extra), number=1000, repeat=5))
    assert seconds < 1.0, sys.version  # 1 ms each; measured 10 us
