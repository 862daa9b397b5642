"""Start the clinic's web server and its workers, as the entry point of one container does.

python -m bench.clinic.start ADDRESS
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

_STOP_S = 20


def main(address: str) -> None:
    """Run both until one ends or this is told to."""
    planted = os.environ.get("CLINIC_PROBLEMS", "").split(",")
    threads = (1, 2) if "few_threads" in planted else (2, 8)
    concurrency = 1 if "few_workers" in planted else 4
    web = ["gunicorn", "bench.clinic.wsgi:application", "--bind", address]
    web += ["--workers", str(threads[0]), "--threads", str(threads[1])]
    jobs = ["celery", "-A", "bench.clinic.worker", "worker", "--concurrency", str(concurrency)]
    jobs += ["--loglevel", "warning", "--without-gossip", "--without-mingle"]
    started = [subprocess.Popen([sys.executable, "-m", *command]) for command in (jobs, web)]

    def stop(number: int, frame: FrameType | None) -> None:
        for one in started:
            one.terminate()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    for one in reversed(started):
        one.wait(None if one is started[1] else _STOP_S)


if __name__ == "__main__":
    main(sys.argv[1])
