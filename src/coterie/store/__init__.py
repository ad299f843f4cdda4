"""Published editions of recommendation lists: one interface over SQLite and PostgreSQL.

The door is this module: `open_store` gives a `Store`. It needs no torch, and it knows nothing of
days, models or servers: an edition is a name that sorts, with whatever facts its publisher gives.
"""

from coterie.store.door import open_store
from coterie.store.edition import JSON, Edition, Found, Note
from coterie.store.store import Store

__all__ = ["JSON", "Edition", "Found", "Note", "Store", "open_store"]
