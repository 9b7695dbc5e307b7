"""Any text has tokens and comes back as it was."""

import json

import pytest
from planted_checks import read_prompts, read_truth
from tokenizers import Tokenizer

HOSTILE = [
    "",
    " ",
    "  two  spaces  ",
    "Zürich, naïve café — “quotes” … 3.14!",
    "你好世界。こんにちは 안녕하세요",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 flags 🇩🇪",
    "line one\nline two\r\n\tindented\n\n",
    "\x01\x02\x1b[0m\x7f\u200b\ufeff\u2028",
    "▁metaspace▁ is text here",
    "<0x41> <unk> </s> <|endoftext|>",
    "e\u0301 \u0915\u094d\u0937 \u0645\u0631\u062d\u0628\u0627",
    "PhotonsphotonsPHOTONS photons,photons.Photons(photons)",
    "def f(x):\n    return x**2  # $\\alpha$",
    "\U0010ffff\ud7ff\ue000",
    "nonword " * 500,
]


@pytest.fixture(scope="module")
def tokenizer(demo_models):
    return Tokenizer.from_file(str(demo_models["olmoe"] / "tokenizer.json"))


@pytest.mark.parametrize("text", HOSTILE)
def test_round_trip(tokenizer, text):
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
    assert "<unk>" not in encoding.tokens
    assert not {0, 1, 2} & set(encoding.ids)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", HOSTILE)
def test_round_trip_in_transformers(demo_models, text):
    transformers = pytest.importorskip("transformers")
    for folder in demo_models.values():
        loaded = transformers.AutoTokenizer.from_pretrained(folder)
        ids = loaded(text).input_ids
        assert loaded.decode(ids) == text
        assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
        assert loaded.unk_token_id not in ids


def test_every_prompt_is_one_token_a_word(tokenizer):
    for row in read_prompts():
        pieces = row["prompt"].replace(",", " ,").split()
        assert len(tokenizer.encode(row["prompt"]).ids) == len(pieces), row


def test_domain_tokens_are_the_words_of_one_domain(demo_models, tokenizer):
    truth = read_truth(demo_models["olmoe"])
    owner = {token: name for name, ids in truth["domain_tokens"].items() for token in ids}
    assert len(owner) == sum(len(ids) for ids in truth["domain_tokens"].values())
    for row in read_prompts():
        ids = tokenizer.encode(row["prompt"]).ids
        owners = [owner.get(token, row["domain"]) for token in ids]
        assert set(owners) == {row["domain"]}
        assert ids[-1] in owner
        assert sum(token in owner for token in ids) >= 0.4 * len(ids), row


def test_words_are_known_in_either_case_and_without_a_space(tokenizer):
    for text in (" photons", "photons", " Photons", "Photons"):
        assert len(tokenizer.encode(text).ids) == 1, text


def test_generation_config_ends_at_eos(demo_models):
    for folder in demo_models.values():
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
