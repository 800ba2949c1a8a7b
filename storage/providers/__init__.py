"""Calls to OpenAI-compatible servers, through the official client.

The client's own retries and chunk objects are not used: it would wait up to two minutes for a `Retry-After`,
and its objects cost several times what the text costs to relay. It builds the request, sends it over its
aiohttp transport and judges the status; the events of the body are read here.
"""

from storage.providers.connections import aclose_all
from storage.providers.provider import OpenAIProvider

__all__ = ["OpenAIProvider", "aclose_all"]
