"""What is known of a run's settings before an engine is imported, for plans and schedules."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracer.capture.manifest import CaptureRequest, folder_digest
from tracer.datasets.options import Dataset

__all__ = ["differs", "known_settings", "settings_digest"]


def known_settings(request: CaptureRequest, dataset: Dataset) -> dict[str, Any]:
    """Columns of `runs` that a capture would write; the revision of a model in a folder alone."""
    folder = Path(request.model)
    revision = {"model_revision": folder_digest(folder)} if folder.is_dir() else {}
    return {
        "model": request.model,
        **revision,
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "weight_precision": request.weight_precision,
        "max_tokens": request.max_tokens,
        "options": request.to_options(),
    }


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Eight characters that tell settings apart; hex."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def differs(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that a stored run does not share."""
    return [name for name, value in settings.items() if stored[name] != value]
