"""Which live requests are recorded, and under which labels.

A request speaks through ``vllm_xargs``, which vLLM hands on as ``SamplingParams.extra_args``:

    tracer_capture        1 or 0: asks for a record, or declines
    tracer_domain         the domain
    tracer_label_<name>   a label

Whatever else stands there is not ours. What a client sends is text to keep, never a name of
anything: values are bounded, cleaned and counted, and nothing here raises into serving.
"""

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tracer.live.config import LiveConfig
from tracer.live.status import Counts
from tracer.records import NO_DOMAIN

__all__ = ["CAPTURE_KEY", "DOMAIN_KEY", "LABEL_KEY", "MAX_VALUE", "Chooser", "Chosen"]

CAPTURE_KEY = "tracer_capture"
DOMAIN_KEY = "tracer_domain"
LABEL_KEY = "tracer_label_"
# Characters of a label's value or a domain.
MAX_VALUE = 128
# Keys of a request that are looked at, and domains of a process: each one is a group in `usage`.
_MOST_KEYS = 64
_MOST_DOMAINS = 1000
_WORDS: dict[str, bool] = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_LONGEST_WORD = max(map(len, _WORDS))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A request to record.

    labels: those the configuration keeps, hashed where it says so
    reason: `rate`, or `label` where the rate of a label chose it
    """

    domain: str
    labels: dict[str, str]
    reason: Literal["rate", "label"]


class Chooser:
    """Decides request by request; the same id and the same rate give the same answer.

    Args:
        config: of the server.
        counts: where requests are counted; new ones by default.
    """

    def __init__(self, config: LiveConfig, counts: Counts | None = None) -> None:
        self.counts = counts if counts is not None else Counts()
        self._config = config
        self._rate = config.rate
        self._key = config.hash_key()
        self._kept = frozenset(config.labels)
        self._read = self._kept | (frozenset(config.label_rates) - {"domain"})
        self._hashed = frozenset(config.hash_labels)
        self._domains = None if config.domains is None else frozenset(config.domains)
        self._seen_domains: set[str] = set()

    def set_rate(self, rate: float | None) -> None:
        """Record another share of the requests; None: what the configuration says."""
        self._rate = self._config.rate if rate is None else rate

    def choose(self, request_id: str, extra_args: Mapping[str, Any] | None) -> Chosen | None:
        """Whether to record a request, and its domain and labels.

        Args:
            request_id: decides at rates between 0 and 1.
            extra_args: of its sampling parameters.
        """
        self.counts.seen += 1
        try:
            chosen = self._choose(request_id, extra_args if isinstance(extra_args, Mapping) else {})
        except Exception:  # noqa: BLE001 - serving goes on
            self.counts.leave_out("error")
            return None
        if chosen is not None:
            self.counts.chosen += 1
        return chosen

    def _choose(self, request_id: str, extra_args: Mapping[str, Any]) -> Chosen | None:
        if (reason := self._refusal(extra_args.get(CAPTURE_KEY))) is not None:
            self.counts.leave_out(reason)
            return None
        given = self._given(extra_args)
        rate, by = self._rate_of(given)
        if _share(request_id, self._key or self._config.name.encode()) >= rate:
            self.counts.leave_out("rate")
            return None
        domain = self._domain(given.pop("domain", None))
        labels = {
            name: self._shown(name, given[name]) for name in sorted(given) if name in self._kept
        }
        return Chosen(domain, labels, by)

    def _refusal(self, value: Any) -> str | None:
        """Why the request is left out whatever its rate, if it is."""
        if self._config.opt == "all":
            return None
        wish = _wish(value)
        if wish is None and value is not None:
            self.counts.refuse_value("capture")
            # What cannot be read may have been meant as a no.
            wish = False
        if wish is False:
            return "declined"
        return "not_asked" if wish is None and self._config.opt == "in" else None

    def _given(self, extra_args: Mapping[Any, Any]) -> dict[str, str]:
        """Domain and known labels of the request, cleaned."""
        given: dict[str, str] = {}
        for number, (key, value) in enumerate(extra_args.items()):
            if number >= _MOST_KEYS:
                self.counts.refuse_value("too_many")
                break
            if not isinstance(key, str):
                continue
            if key == DOMAIN_KEY:
                name = "domain"
            elif key.startswith(LABEL_KEY):
                name = key[len(LABEL_KEY) : len(LABEL_KEY) + 33]
                if name not in self._read:
                    self.counts.refuse_value("not_kept")
                    continue
            else:
                continue
            if (text := _clean(value)) is None:
                self.counts.refuse_value("value")
            else:
                given[name] = text
        return given

    def _rate_of(self, given: Mapping[str, str]) -> tuple[float, Literal["rate", "label"]]:
        for name, rates in self._config.label_rates.items():
            if name in given and (rate := rates.get(given[name])) is not None:
                return rate, "label"
        return self._rate, "rate"

    def _domain(self, value: str | None) -> str:
        if value is None or value == NO_DOMAIN:
            return NO_DOMAIN
        if self._domains is not None and value not in self._domains:
            self.counts.refuse_value("not_kept")
            return NO_DOMAIN
        if value not in self._seen_domains:
            if len(self._seen_domains) >= _MOST_DOMAINS:
                self.counts.refuse_value("too_many")
                return NO_DOMAIN
            self._seen_domains.add(value)
        return self._shown("domain", value)

    def _shown(self, name: str, value: str) -> str:
        """The value as it is kept: hashes of 32 hex digits, that differ from label to label."""
        if name not in self._hashed or self._key is None:
            return value
        text = f"{name}={value}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]


def _share(request_id: str, key: bytes) -> float:
    """A number in [0, 1) that is the request's own; with a secret key nobody can aim at one."""
    digest = hmac.new(key, request_id.encode("utf-8", "replace"), hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _wish(value: Any) -> bool | None:
    """Yes or no of ``tracer_capture``; None where it is neither."""
    match value:
        case bool():
            return value
        case int() if value in (0, 1):
            return value == 1
        case str() if len(value) <= _LONGEST_WORD:
            return _WORDS.get(value.lower())
        case _:
            return None


def _clean(value: Any) -> str | None:
    """A value as text to keep; None if it is none, or of another kind or length.

    In Unicode's NFC, so that what looks alike by composition is alike. Controls, format
    characters (which turn or hide text), lone surrogates and unassigned ones are refused.
    """
    match value:
        case bool():
            text = str(int(value))
        case int() if abs(value) < 2**64:
            text = str(value)
        case float():
            text = repr(value)
        case str() if len(value) <= MAX_VALUE:
            text = unicodedata.normalize("NFC", value).strip()
        case _:
            return None
    if not text or len(text) > MAX_VALUE:
        return None
    if any(unicodedata.category(character) in _REFUSED for character in text):
        return None
    return text


# Control, format, surrogate, private use, unassigned; line and paragraph separators.
_REFUSED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
