"""The web application: the page, and the jobs that it asks for."""

import json
from collections.abc import AsyncIterator, Generator, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from underone.config import parse
from underone.errors import UserError
from underone.explore.jobs import MEASURED_SAMPLES, Job, draw_live, measure_live
from underone.explore.lines import JobLock, lines
from underone.explore.offer import Offer
from underone.explore.request import Request
from underone.study.report.html import templates

# The page takes its style from reports.
_PACKAGES = ("underone.explore", "underone.study.report")
# More than any request of the page.
_MOST_BYTES = 10_000


def application(offer: Offer, lock: JobLock, hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application.

    A request whose Host is none of `hosts` is refused: a script of another site could otherwise
    reach the page by a name that resolves to this machine.
    """
    html = page(offer)

    async def show(request: HttpRequest) -> Response:
        return HTMLResponse(html)

    def answering(job: Job) -> Any:
        async def stream(request: HttpRequest) -> Response:
            try:
                asked = parse(Request, await _document(request), "the request")
            except UserError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
            except ClientDisconnect:
                return Response(status_code=400)
            answer = lines(partial(job, offer, asked), lock)
            return StreamingResponse(
                _while_read(request, answer), media_type="application/x-ndjson"
            )

        return stream

    return Starlette(
        routes=[
            Route("/", show),
            Route("/draw", answering(draw_live), methods=["POST"]),
            Route("/measure", answering(measure_live), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


async def _while_read(request: HttpRequest, answer: Generator[str]) -> AsyncIterator[str]:
    """The lines of a job for as long as somebody reads them."""
    try:
        async for line in iterate_in_threadpool(answer):
            if await request.is_disconnected():
                return
            yield line
    finally:
        answer.close()


async def _document(request: HttpRequest) -> Any:
    """The JSON of a request, declared as such, which a form of another site cannot do."""
    if (kind := request.headers.get("content-type")) != "application/json":
        raise UserError(f"a request must be of type application/json, got {kind}")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise UserError("the request is too long")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the request is not valid JSON") from None


def page(offer: Offer) -> str:
    """The page as HTML, which loads no other file."""
    return (
        templates(*_PACKAGES)
        .get_template("explore.html.jinja")
        .render(offer=offer.document(), measured_samples=MEASURED_SAMPLES, sides=("left", "right"))
    )
