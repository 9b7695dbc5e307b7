"""The demo tokenizer: whole words of the prompts, bytes for everything else."""

from dataclasses import dataclass
from typing import Any

from tracer.demo.constants import CONTEXT_LENGTH
from tracer.demo.prompts import Vocabulary
from tracer.errors import EngineMissingError

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "PAD_ID",
    "TokenTable",
    "Word",
    "make_token_table",
    "tokenizer_files",
]

PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
_SPECIAL = ("<pad>", "<bos>", "<eos>")
_PUNCTUATION = " \n\t.,;:!?'\"()[]{}<>-_/\\@#$%^&*+=|~`0123456789"

# Pieces that may be whole tokens: a run of letters with the space before it, else one
# character. Nothing is dropped, so decoding is a mere concatenation. Spaces are kept as they
# are instead of Metaspace's U+2581, which could then not itself be round-tripped.
_PIECES = r" ?\p{L}+|[^\p{L}]"


@dataclass(frozen=True, slots=True)
class Word:
    """One word and its tokens: ``canonical`` as it stands mid-sentence, other ``variants``.

    Variants differ in capitals and in the space before the word.
    """

    canonical: int
    variants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Every token: text by id (the list index), and which ids belong to which words.

    domain_words: for each domain, in the vocabulary's order
    neutral_words: the other words
    other: special tokens, bytes, punctuation and digits
    """

    texts: tuple[str, ...]
    domain_words: tuple[tuple[Word, ...], ...]
    neutral_words: tuple[Word, ...]
    other: tuple[int, ...]

    def domain_ids(self, domain_index: int) -> list[int]:
        """Ids of all tokens of a domain, canonical ones first."""
        return word_ids(self.domain_words[domain_index])


def word_ids(words: tuple[Word, ...]) -> list[int]:
    """Canonical ids of all words, then all variants."""
    return [word.canonical for word in words] + [id_ for word in words for id_ in word.variants]


def make_token_table(vocabulary: Vocabulary) -> TokenTable:
    """Number the tokens: specials, 256 bytes, punctuation, words in order of domains."""
    texts = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *_PUNCTUATION]
    num_other = len(texts)

    def add(form: str) -> Word:
        spelled = dict.fromkeys((form, form.lower(), form.capitalize()))
        ids = range(len(texts), len(texts) + 2 * len(spelled))
        texts.extend(space + one for space in (" ", "") for one in spelled)
        return Word(ids[0], tuple(ids[1:]))

    domain_words = tuple(
        tuple(add(form) for form in vocabulary.domain_words[domain])
        for domain in vocabulary.domains
    )
    neutral_words = tuple(add(form) for form in vocabulary.neutral_words)
    return TokenTable(tuple(texts), domain_words, neutral_words, tuple(range(num_other)))


def tokenizer_files(table: TokenTable) -> dict[str, Any]:
    """Content of the tokenizer's files, by name; JSON values, ``tokenizer.json`` as text.

    Raises:
        EngineMissingError: the ``tokenizers`` library is not installed.
    """
    return {
        "tokenizer.json": _tokenizer_json(table),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": _SPECIAL[PAD_ID],
            "bos_token": _SPECIAL[BOS_ID],
            "eos_token": _SPECIAL[EOS_ID],
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONTEXT_LENGTH,
        },
        "special_tokens_map.json": {
            "pad_token": _SPECIAL[PAD_ID],
            "bos_token": _SPECIAL[BOS_ID],
            "eos_token": _SPECIAL[EOS_ID],
        },
    }


def _tokenizer_json(table: TokenTable) -> str:
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers
    except ImportError as error:
        raise EngineMissingError("the library 'tokenizers' is not installed") from error
    # Without merges a piece is either a word of the vocabulary or falls apart into
    # characters, and those that are no token into bytes: nothing is ever unknown.
    model = models.BPE(
        vocab={text: index for index, text in enumerate(table.texts)},
        merges=[],
        byte_fallback=True,
        ignore_merges=True,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(text, special=True, normalized=False) for text in _SPECIAL]
    )
    return str(tokenizer.to_str(pretty=True))
