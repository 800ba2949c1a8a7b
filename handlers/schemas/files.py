"""Files of sessions on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Named
from handlers.schemas.documents import Ingested


class SessionFile(Ingested, Named):
    """The component ``SessionFile``."""

    session_id = fields.String()


show = SessionFile().show
