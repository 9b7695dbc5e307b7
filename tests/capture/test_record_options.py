"""What is to be recorded crosses process boundaries unchanged."""

import json

from tracer.capture.record_options import RecordOptions


def test_options_survive_the_way_to_a_worker():
    options = RecordOptions("f32", top_m=12, router_logits=True, router_weights=True)
    assert RecordOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_what_is_missing_has_its_default():
    assert RecordOptions.from_dict({"top_m": 3}) == RecordOptions(top_m=3)
    assert RecordOptions.from_dict({}) == RecordOptions("bf16", 0, False, False)
