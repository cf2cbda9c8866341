"""What is done for a job, in whatever process it runs: claim it, do it, say how it ended. Never raises."""

from __future__ import annotations

import time

from harness.errors import Outcome, UsageError
from harness.executors.base import Ended, How, Place
from harness.files import cannot_write
from harness.planning.claims import Claims
from harness.planning.plan import Job
from harness.progress import Progress


def work(job: Job, place: Place, progress: Progress) -> Ended:
    """Make the piece, or run the cell to its record, unless another process is at it."""
    started = time.monotonic()
    how: How = "done"
    detail = ""
    try:
        with Claims(place.out, place.claims).held(job.id) as mine:
            if mine:
                detail = _do(job, place, progress)
            else:
                how = "busy"
    except KeyboardInterrupt:
        how = "interrupted"
    except Outcome as outcome:
        how, detail = "outcome", f"{outcome.status}: {_line(outcome)}"
    except UsageError as error:
        how, detail = "usage", _line(error)
    except Exception as error:  # a plug-in may fail in any way
        full = isinstance(error, OSError) and cannot_write(error)
        how = "no_room" if full else "failed"
        detail = str(error.errno) if isinstance(error, OSError) and full else f"{type(error).__name__}: {_line(error)}"
    return Ended(job=job.id, how=how, detail=detail, seconds=time.monotonic() - started)


def _do(job: Job, place: Place, progress: Progress) -> str:
    from harness.cache import Cache
    from harness.cell import run_cell
    from harness.planning.pieces import make
    from harness.spec import Spec
    from harness.workshop import Workshop

    workshop = Workshop(cache=Cache(place.cache), data_dir=place.data_dir, progress=progress,
                        reporting=place.reporting)  # fmt: skip
    if job.kind != "cell":
        make(job.piece, workshop)
        return ""
    record = run_cell(Spec.parse(job.spec, "spec"), out=place.out, workshop=workshop, contained=True)
    return record.status + (f": {record.status_reason}" if record.status_reason else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:2000]
