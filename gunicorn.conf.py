"""gunicorn's settings: one uvicorn worker (or BOOGA_WORKERS of them), drained on SIGTERM."""

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
