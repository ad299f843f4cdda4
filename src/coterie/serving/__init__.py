"""The HTTP API over published lists and the live model: `create_app` and `serve`.

It starts and reads lists without torch, which is imported in the background once the server
answers. FastAPI and uvicorn are the extra ``coterie[serve]``.
"""

from coterie.serving.door import create_app, serve
from coterie.serving.limits import Limits

__all__ = ["Limits", "create_app", "serve"]
