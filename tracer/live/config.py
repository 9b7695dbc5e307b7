"""What is recorded of live traffic, and where: ``TRACER_LIVE=file.yaml`` and ``TRACER_LIVE_*``.

Read in every process of a server, each from the environment it inherited.
"""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tracer.errors import InputError
from tracer.store.lake_location import is_url

__all__ = ["CONFIG_VARIABLE", "LABEL_NAME", "LiveConfig", "load_config"]

CONFIG_VARIABLE = "TRACER_LIVE"
_PREFIX = "TRACER_LIVE_"
_MOST_BYTES = 1024 * 1024
# Of a label; `domain` is not one, it has a column of its own.
LABEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_LabelName = Annotated[str, Field(pattern=rf"^{LABEL_NAME.pattern}$")]


class LiveConfig(BaseModel):
    """One server's capture of live traffic. A misspelt key is an error.

    Paths in a file are relative to its folder, those in variables to the working directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lake: Annotated[str, Field(min_length=1, description="Folder or s3:// URL of the lake.")]
    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="Runs are called <name>-<time>. Servers of one lake have a name each.",
        ),
    ] = "live"
    recording: Annotated[
        bool, Field(description="Record from the start; else once `tracer live start` says so.")
    ] = True
    rate: Annotated[Rate, Field(description="Share of requests that are recorded.")] = 1.0
    label_rates: Annotated[
        dict[_LabelName, dict[str, Rate]],
        Field(
            description="Label (or domain) -> value -> rate in place of `rate`. The first entry"
            " that a request matches counts."
        ),
    ] = {}
    opt: Annotated[
        Literal["all", "in", "out"],
        Field(
            description="in: only requests that ask (tracer_capture: 1); out: all but those that"
            " decline (tracer_capture: 0); all: requests have no say."
        ),
    ] = "out"
    labels: Annotated[
        tuple[_LabelName, ...], Field(description="Labels that are kept; all others are not.")
    ] = ()
    domains: Annotated[
        tuple[str, ...] | None,
        Field(description="Domains that are kept; a request of another one has domain 'none'."),
    ] = None
    hash_labels: Annotated[
        tuple[_LabelName, ...],
        Field(description="Of `labels` (or domain): kept as HMAC-SHA256 with the key only."),
    ] = ()
    hash_key_file: Annotated[
        Path | None, Field(description="File with the key of the hashes, at least 16 bytes.")
    ] = None
    run_hours: Annotated[
        int, Field(ge=1, le=24 * 31, description="Hours of traffic in one run.")
    ] = 24
    queue_mb: Annotated[
        int,
        Field(
            ge=1,
            description="Memory of rows that wait to be written; beyond it, requests"
            " are dropped whole and counted.",
        ),
    ] = 256
    seal_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Finished requests are in the lake this soon; a kill loses what is newer.",
        ),
    ] = 60.0
    disk_gb: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Oldest runs are deleted beyond this size."),
    ] = None
    keep_hours: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Runs that ended earlier are deleted."),
    ] = None
    text: Annotated[bool, Field(description="Keep prompt and output text too.")] = False
    control: Annotated[
        Path | None,
        Field(
            description="Local folder of status and commands. By default _tracer/live/<name> of"
            " the lake; a lake in a bucket has no default."
        ),
    ] = None

    @field_validator("label_rates", "labels", "hash_labels", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("label_rates")
    @classmethod
    def _compose(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """Values as ``choose.py`` has those of requests: composed, in Unicode's NFC."""
        return {
            name: {unicodedata.normalize("NFC", given): rate for given, rate in rates.items()}
            for name, rates in value.items()
        }

    @property
    def control_folder(self) -> Path:
        """Where ``status.json`` and ``control.json`` are."""
        return self.control or Path(self.lake) / "_tracer" / "live" / self.name

    def hash_key(self) -> bytes | None:
        """The key of the hashes, without the line end of its file.

        Raises:
            InputError: the file cannot be read, or the key is too short to protect anything.
        """
        if self.hash_key_file is None:
            return None
        try:
            with self.hash_key_file.open("rb") as file:
                key = file.read(4096).rstrip(b"\r\n")
        except OSError as error:
            raise InputError(f"cannot read hash_key_file: {error.strerror}") from error
        if len(key) < _LEAST_KEY_BYTES:
            raise InputError(
                f"the key in {self.hash_key_file} has {len(key)} bytes, fewer than"
                f" {_LEAST_KEY_BYTES}",
                "make one: head -c 32 /dev/urandom | base64 > FILE",
            )
        return key

    def public(self) -> dict[str, Any]:
        """What may stand in a lake: no path, and no value of a label that is hashed."""
        shown = self.model_dump(
            mode="json", exclude={"lake", "control", "hash_key_file", "label_rates", "domains"}
        )
        for name, rates in self.label_rates.items():
            if name not in self.hash_labels:
                shown.setdefault("label_rates", {})[name] = dict(rates)
        if self.domains is not None and "domain" not in self.hash_labels:
            shown["domains"] = list(self.domains)
        return shown


_LEAST_KEY_BYTES = 16


def load_config(environ: Mapping[str, str], *, read_key: bool = True) -> LiveConfig | None:
    """The configuration that an environment holds; None where it asks for no live capture.

    ``TRACER_LIVE`` names a file, YAML or JSON; each ``TRACER_LIVE_<KEY>`` is one key, in YAML,
    and wins over the file.

    Args:
        environ: the variables.
        read_key: see that the key of the hashes can be used; who only gives commands may not
            read it.

    Raises:
        InputError: a file that cannot be read, an unknown key, or a value that cannot be used.
    """
    variables = {
        name: value for name, value in environ.items() if name.startswith(_PREFIX) and value
    }
    file = environ.get(CONFIG_VARIABLE)
    if not file and not variables:
        return None
    raw: dict[str, Any] = _read(Path(file)) if file else {}
    source = file or "the environment"
    for name, value in variables.items():
        key = name.removeprefix(_PREFIX).lower()
        if key not in LiveConfig.model_fields:
            raise InputError(f"{name} is no setting of live capture", _KEYS)
        raw[key] = value if key in _TEXTS else _yaml(value, name)
    for key in ("lake", "hash_key_file", "control"):
        named = variables.get(f"{_PREFIX}{key.upper()}")
        folder = Path(file).absolute().parent if file and named is None else Path.cwd()
        path = raw.get(key)
        if isinstance(path, str) and path and not is_url(path):
            raw[key] = str(folder / Path(path).expanduser())
    try:
        config = LiveConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # No further than the label: what stands below it in `label_rates` may be somebody's name.
        key, *inner = map(str, first["loc"][:2] or ("the document",))
        variable = f"{_PREFIX}{key.upper()}"
        where = variable if variable in variables else f"{source}: {'.'.join([key, *inner])}"
        raise InputError(f"{where}: {first['msg']}", _KEYS) from error
    _check(config, source)
    if read_key:
        config.hash_key()
    return config


_KEYS = f"keys: {', '.join(LiveConfig.model_fields)}."
# Taken as they stand, so that a name such as `on` or `12` stays a text.
_TEXTS = ("lake", "name", "hash_key_file", "control")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", f"{CONFIG_VARIABLE} names the file."
        ) from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"{path} is longer than {_MOST_BYTES} bytes")
    try:
        document = _yaml(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise InputError(f"{path} holds no keys", _KEYS)
    return document


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{source} is not YAML: {said}") from error


def _check(config: LiveConfig, source: str) -> None:
    """What one key says about another."""
    if config.control is None and is_url(config.lake):
        raise InputError(
            f"{source}: a lake in a bucket needs a local folder for status and commands",
            "set control: /run/moe-tracer (TRACER_LIVE_CONTROL).",
        )
    if config.control is not None and is_url(str(config.control)):
        raise InputError(f"{source}: control is a URL", "give a folder of this machine.")
    if "domain" in config.labels:
        raise InputError(f"{source}: labels: the domain is always kept", "take it out of `labels`.")
    if lost := [name for name in config.hash_labels if name not in {*config.labels, "domain"}]:
        raise InputError(
            f"{source}: hash_labels: {lost[0]!r} is not among the labels that are kept",
            f"add it: labels: [{lost[0]}].",
        )
    if config.hash_labels and config.hash_key_file is None:
        raise InputError(f"{source}: hash_labels without a key", "set hash_key_file.")
