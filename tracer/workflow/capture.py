"""Dataset to complete run, with progress on stderr and the engine's log out of the way."""

from pathlib import Path
from typing import Any

from tracer.capture.drive import capture
from tracer.capture.manifest import CaptureRequest
from tracer.capture.recording import Progress
from tracer.datasets.loader import load_dataset
from tracer.datasets.options import DatasetOptions
from tracer.errors import EngineFailedError, TracerError
from tracer.records import NO_DOMAIN
from tracer.store.shares import Share
from tracer.workflow.progress import CaptureProgress, engine_log

__all__ = ["capture_dataset"]


def capture_dataset(
    request: CaptureRequest,
    dataset: str,
    options: DatasetOptions,
    lake_path: Path | str,
    *,
    share: Share | None = None,
    progress: Progress | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Record a dataset; the dataset is read and checked before the engine is touched.

    Args:
        request: what to capture.
        dataset: its name.
        options: how to read it.
        lake_path: where to.
        share: the part of the requests to run, while other processes run the others.
        progress: where to report to; by default stderr.
        verbose: show the engine's log.

    Returns:
        The fields of ``CaptureSummary``, ``num_domains``, and ``unmapped``: rows without a domain
        by subject.

    Raises:
        TracerError: of any kind the stages raise; an engine's failure names its log.
    """
    rows = load_dataset(dataset, options)
    with engine_log("capture", verbose=verbose) as (stream, log):
        shown = CaptureProgress(stream)
        try:
            summary = capture(request, rows, lake_path, progress or shown, share)
        except EngineFailedError as error:
            raise error.with_log(log) from error
        except (TracerError, KeyboardInterrupt):
            # The log tells nothing more than the error does.
            if log is not None:
                log.unlink(missing_ok=True)
            raise
        finally:
            shown.close()
    domains = {row.domain for row in rows.rows} - {NO_DOMAIN}
    return {
        **summary.to_dict(),
        "num_domains": len(domains),
        "unmapped": dict(rows.unmapped),
    }
