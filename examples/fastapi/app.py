"""A counter for each visitor, kept in the process that serves them. A cookie makes them come back to it."""

import os
import secrets

from fastapi import Cookie, FastAPI, Response

app = FastAPI()
counters: dict[str, int] = {}


@app.get("/")
def count(response: Response, visitor: str | None = Cookie(default=None)) -> dict[str, object]:
    known = visitor in counters
    if visitor is None or not known:
        visitor = secrets.token_urlsafe(12)
        # This is all that sidetrack needs to see: from now on the cookie leads here.
        response.set_cookie("visitor", visitor, httponly=True, samesite="lax")
    counters[visitor] = counters.get(visitor, 0) + 1
    return {"visits": counters[visitor], "process": os.getpid(), "new": not known}


@app.post("/leave")
def leave(response: Response, visitor: str | None = Cookie(default=None)) -> dict[str, object]:
    response.delete_cookie("visitor")
    return {"visits": counters.pop(visitor or "", 0), "process": os.getpid()}
