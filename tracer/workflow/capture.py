"""Dataset to complete run, with progress on stderr and the engine's log out of the way."""

from pathlib import Path
from typing import Any

from tracer.capture.drive import capture
from tracer.capture.manifest import CaptureRequest
from tracer.datasets.loader import load_dataset
from tracer.datasets.options import DatasetOptions
from tracer.errors import EngineFailedError, TracerError
from tracer.records import NO_DOMAIN
from tracer.workflow.progress import CaptureProgress, engine_log

__all__ = ["capture_dataset"]


def capture_dataset(
    request: CaptureRequest,
    dataset: str,
    options: DatasetOptions,
    lake_path: Path | str,
    *,
    verbose: bool = False,
) -> dict[str, Any]:
    """Record a dataset; the dataset is read and checked before the engine is touched.

    Returns:
        The fields of ``CaptureSummary``, ``num_domains``, and ``unmapped``: rows without a domain
        by subject.

    Raises:
        TracerError: of any kind the stages raise; an engine's failure names its log.
    """
    rows = load_dataset(dataset, options)
    with engine_log("capture", verbose=verbose) as (stream, log):
        progress = CaptureProgress(stream)
        try:
            summary = capture(request, rows, lake_path, progress)
        except EngineFailedError as error:
            raise error.with_log(log) from error
        except (TracerError, KeyboardInterrupt):
            # The log tells nothing more than the error does.
            if log is not None:
                log.unlink(missing_ok=True)
            raise
        finally:
            progress.close()
    domains = {row.domain for row in rows.rows} - {NO_DOMAIN}
    return {
        **summary.to_dict(),
        "num_domains": len(domains),
        "unmapped": dict(rows.unmapped),
    }
