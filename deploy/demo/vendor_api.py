"""A local HTTP API that the demo governs: a vendor directory that leaks the key it was called with, as real ones do."""

import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def lookup(request: Request) -> JSONResponse:
    """One vendor. The echoed credential is what the gateway has to catch."""
    if request.headers.get("authorization") != f"Bearer {os.environ['VENDOR_KEY']}":
        return JSONResponse({"error": "no key"}, 401)
    vendor = {"id": request.path_params["id"], "name": "Alpine Paper", "iban": "AT611904300234573201"}
    return JSONResponse({**vendor, "debug": f"called with {request.headers['authorization']}"})


async def notify(request: Request) -> JSONResponse:
    """Would send a letter."""
    return JSONResponse({"sent": request.path_params["id"]})


app = Starlette(
    routes=[Route("/vendors/{id}", lookup), Route("/vendors/{id}/letters", notify, methods=["POST"])],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
