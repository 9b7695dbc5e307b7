"""Options of an audit that go together, and those that do not."""

import json
from collections.abc import Mapping

from tracer.errors import InputError
from tracer.records import AUDIT_MODES, GATE_WEIGHTS, TOKEN_SCOPES, UNKNOWN

__all__ = ["LAST_PROMPT", "check_draws", "check_template", "has_weights", "token_scope"]

LAST_PROMPT = "last-prompt"


def check_draws(mode: str, draws: int, seed: int, *, same_token: bool) -> None:
    """Raise InputError where such draws cannot be made."""
    if same_token and (mode != "gate" or not draws):
        raise InputError(
            "the same-token control compares gate weights with those by chance",
            "use it with --mode gate, and with --draws above 0.",
        )
    if draws < 0 or seed < 0:
        raise InputError(
            f"{draws} draws with seed {seed} cannot be made", "give 0 draws or more, a seed from 0."
        )
    if draws and mode == "reference":
        raise InputError(
            "mode 'reference' has no draws: it repeats numbers of the authors' code, which has"
            " neither intervals nor chance levels",
            "--mode gate has them; --draws 0 leaves them out.",
        )


def check_template(mode: str, *, exclude_template: bool, same_token: bool) -> None:
    """Raise InputError where a template's tokens cannot be left out."""
    if exclude_template and (mode != "gate" or same_token):
        raise InputError(
            "a template's tokens can be left out of gate weights alone",
            "use --exclude-template with --mode gate, and without --same-token.",
        )


def token_scope(mode: str, tokens: str | None) -> str:
    """The token scope of an audit, if mode and scope go together."""
    if mode not in AUDIT_MODES:
        raise InputError(f"unknown mode {mode!r}", f"there are: {', '.join(AUDIT_MODES)}.")
    if tokens is not None and tokens not in TOKEN_SCOPES:
        raise InputError(f"unknown tokens {tokens!r}", f"there are: {', '.join(TOKEN_SCOPES)}.")
    if mode == "reference":
        if tokens not in (None, LAST_PROMPT):
            raise InputError(
                f"mode 'reference' reads the last prompt token only, not {tokens!r}",
                "--mode gate takes any --tokens.",
            )
        return LAST_PROMPT
    return tokens or (LAST_PROMPT if mode == "paper" else "prompt")


def has_weights(run: Mapping[str, object]) -> bool:
    """Whether the run's source had gate weights."""
    return bool(json.loads(str(run.get("options") or "{}")).get(GATE_WEIGHTS) != UNKNOWN)
