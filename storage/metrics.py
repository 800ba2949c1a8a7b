"""What the workers count, in Prometheus' terms; served at ``/metrics``, by each of them for all."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from storage.settings import settings

REGISTRY = CollectorRegistry()
REQUESTS = Counter(
    "booga_requests_total",
    "Answers by operation, method and status",
    ["operation", "method", "status"],
    registry=REGISTRY,
)
LATENCY = Histogram(
    "booga_request_seconds",
    "Seconds from request to last byte",
    ["operation"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=REGISTRY,
)
REPLIES = Counter(
    "booga_replies_total", "Replies by provider and final status", ["provider", "status"], registry=REGISTRY
)
FIRST_TOKEN = Histogram(
    "booga_first_token_seconds",
    "Seconds from question to first text",
    ["provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=REGISTRY,
)
TOKENS = Counter(
    "booga_tokens_total", "Tokens by provider and direction", ["provider", "direction"], registry=REGISTRY
)
RUNNING = Gauge(
    "booga_running_replies",
    "Replies being written now",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
INGESTED = Counter(
    "booga_documents_total", "Documents by final status of their ingest", ["status"], registry=REGISTRY
)


def render() -> bytes:
    """The text exposition format; of several workers, the sums that gunicorn.conf.py has them keep."""
    if settings().workers == 1:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)
    return generate_latest(together)
