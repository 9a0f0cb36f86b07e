"""The application: its routes, its guards, and its pages, wherever it runs."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, JSONResponse

from cluster.config.serve import ServeConfig
from cluster.web import api, cvat, label_studio
from cluster.web.guards import Access, Size
from cluster.web.service import Finders, Service

_PAGES = Path(__file__).with_name("page")
#: Browsers load nothing from elsewhere, run nothing that stands in the page, and show it in nobody's frame.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def build(finders: Finders, config: ServeConfig) -> FastAPI:
    """The application that serves a model as `config` says."""
    app = FastAPI(title="Few-shot segmentation", version="1", docs_url=None, redoc_url=None)
    app.state.service = Service(finders, config)
    app.state.label_studio = label_studio.LabelStudio(app.state.service)
    for routes in (api, label_studio, cvat):
        app.include_router(routes.router)
    app.get("/", include_in_schema=False)(_page)
    app.get("/docs", include_in_schema=False)(_docs)
    app.get("/page/{name}", include_in_schema=False)(_part)
    app.exception_handler(RequestValidationError)(_invalid)
    app.add_middleware(Size, mib=config.max_upload_mib)
    app.add_middleware(Access, token=config.secret)
    return app


async def _page() -> FileResponse:
    return FileResponse(_PAGES / "index.html", headers=_HEADERS)


async def _docs() -> FileResponse:
    return FileResponse(_PAGES / "docs.html", headers=_HEADERS)


async def _part(name: str) -> FileResponse:
    parts = {one.name: one for one in _PAGES.iterdir()}  # names are looked up, so that no path leads elsewhere
    if name not in parts:
        raise HTTPException(404, f"there is no {name}")
    return FileResponse(parts[name], headers=_HEADERS)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """One sentence for all that does not fit the schema."""
    assert isinstance(error, RequestValidationError)
    wrong = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(wrong)}, 422)
