"""The bundled prompts and the words that belong to exactly one of their domains."""

import json
import re
from dataclasses import dataclass
from importlib import resources

__all__ = ["FUNCTION_WORDS", "DemoPrompt", "Vocabulary", "bundled_prompts", "read_vocabulary"]

# Grammar words carry no topic. Some occur in one domain only by accident of the bundled
# sentences; planting them would pull foreign text into that domain.
_GRAMMAR = """
a about above across after against all along alone already also although always among an and
another any are around as at away be because before behind below beneath beside besides
between beyond both but by can cannot could despite did do does during each either ever every
few for from had has have having he her here his how however i if in inside instead into is it
its itself least less lest many may me merely might more most must my near neither never no
nor not of off often on once one ones only onto or other otherwise our out outside over past
per quite rather same seem seems she should since six so some still such than that the their
them then there thereby therefore these they this those though three through throughout thus
to together too toward two under unless until unlike up upon us usually very via was we were
what when whenever where whereas whether which while who whom whose why will with within
without would yet you your
"""
FUNCTION_WORDS = frozenset(_GRAMMAR.split())

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """One bundled prompt: its row id (like 'stem-math-01'), domain label and text."""

    row_id: str
    domain: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Word forms of the prompts, as they are written in the middle of a sentence.

    domains: labels in file order
    domain_words: for each domain the words that occur in no other, in order of appearance
    neutral_words: all other words of the prompts, in order of appearance
    """

    domains: tuple[str, ...]
    domain_words: dict[str, tuple[str, ...]]
    neutral_words: tuple[str, ...]


def bundled_prompts() -> tuple[DemoPrompt, ...]:
    """All bundled prompts in file order (nine domains)."""
    source = resources.files("tracer.datasets") / "prompts" / "demo.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    return tuple(DemoPrompt(row["id"], row["domain"], row["prompt"]) for row in rows)


def read_vocabulary(prompts: tuple[DemoPrompt, ...]) -> Vocabulary:
    """Split the words of ``prompts`` into those of one domain and the neutral rest.

    Words are compared without case. A form seen inside a sentence keeps its capital
    ("Euclidean"); a form seen only as a first word is taken in lower case.
    """
    domains: dict[str, None] = {}
    homes: dict[str, set[str]] = {}
    written: dict[str, str] = {}
    for prompt in prompts:
        domains[prompt.domain] = None
        for index, word in enumerate(_WORD.findall(prompt.prompt)):
            key = word.lower()
            homes.setdefault(key, set()).add(prompt.domain)
            if index > 0:
                written[key] = word
            else:
                written.setdefault(key, key)
    exclusive = {
        key: next(iter(found))
        for key, found in homes.items()
        if len(found) == 1 and key not in FUNCTION_WORDS
    }
    return Vocabulary(
        domains=tuple(domains),
        domain_words={
            domain: tuple(written[key] for key, home in exclusive.items() if home == domain)
            for domain in domains
        },
        neutral_words=tuple(written[key] for key in homes if key not in exclusive),
    )
