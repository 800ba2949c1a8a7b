"""gunicorn's settings: one uvicorn worker (or BOOGA_WORKERS of them), drained on SIGTERM."""

import os
import shutil
import tempfile
from typing import Any

from storage.settings import settings

_settings = settings()

worker_class = "openapi.server.Worker"
workers = _settings.workers
graceful_timeout = 12
timeout = 60
keepalive = 15
backlog = 2048
max_requests = 0
accesslog = None
errorlog = "-"
loglevel = "warning"
forwarded_allow_ips = ",".join(_settings.trusted_proxies)
preload_app = False
control_socket_disable = True

# Several workers count into files of one folder, so that whichever is asked at /metrics tells of all.
if workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # a reload goes on with the same
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="booga-metrics-")


def child_exit(server: Any, worker: Any) -> None:
    """Called in the master when a worker ended: its replies run no more, its counts stay."""
    if workers > 1:
        from prometheus_client import multiprocess  # one worker alone needs none of it in the master

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Called in the master at its end: counts of the next start begin at nothing."""
    if workers > 1:
        # What is left over harms nobody.
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
