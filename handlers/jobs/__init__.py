"""Jobs: what arrives from ourselves, later. Each kind has a module."""

from collections.abc import Mapping
from typing import Final

from handlers.jobs import embed, erase, export, forget, forget_tenant, ingest, mail
from storage import accounts, erasure, exports, library, quotas
from storage.queue import Kind

KINDS: Final[Mapping[str, Kind]] = {
    library.INGEST: Kind(ingest.run, ingest.bury),
    library.EMBED: Kind(embed.run, embed.bury, lane="slow"),
    erasure.ERASE: Kind(erase.run, erase.bury, lane="rare"),
    exports.EXPORT: Kind(export.run, export.bury, lane="rare"),
    library.FORGET: Kind(forget.run, forget.bury),
    quotas.FORGET_TENANT: Kind(forget_tenant.run, forget_tenant.bury),
    accounts.MAIL: Kind(mail.run, mail.bury, lane="mail"),
}
"""Every kind of job that can be asked for. What is slow, or waits for others, has a thread of its own."""
