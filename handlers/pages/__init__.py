"""Pages for people: what is served as HTML, outside the OpenAPI document."""

from handlers.pages import embed, icons
from handlers.pages.docs import pages

__all__ = ["embed", "icons", "pages"]
