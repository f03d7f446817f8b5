"""What tells whether the service is well: `/info`, `/livez`, `/readyz`, `/metrics`."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipeline import __version__
from query.service.answers import Info
from query.service.problems import ProblemError, declared
from query.service.routes.shared import service_of

router = APIRouter(tags=["health"])


@router.get("/info", summary="The stores", response_model=Info, responses=declared())
async def info(request: Request) -> JSONResponse:
    """Each store with its model, index and columns."""
    stores = [
        {
            "name": store.name,
            "num_images": len(store.searcher),
            "model": store.model,
            "policy": store.policy,
            "gmacs": store.gmacs,
            "dim": store.searcher.encoder.embedding_dim,
            "index": store.recipe,
            "version": store.searcher.current[0].version,
            "columns": store.columns,
            "warnings": list(store.searcher.warnings),
        }
        for store in service_of(request).stores
    ]
    return JSONResponse({"clipsieve": __version__, "stores": stores})


@router.get("/livez", summary="Is the process alive?", response_class=PlainTextResponse, responses=declared())
async def livez() -> PlainTextResponse:
    """Status 200 as long as the process answers at all."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", summary="Is the service ready?", response_class=PlainTextResponse, responses=declared())
@router.get("/healthz", response_class=PlainTextResponse, responses=declared(), include_in_schema=False)
async def readyz(request: Request) -> PlainTextResponse:
    """Status 200 if searches are answered at once, 503 while the models are loaded and while the service ends."""
    service = service_of(request)
    if service.is_ending:
        raise ProblemError(503, "the service is ending")
    if not service.is_warm:
        raise ProblemError(503, "the models are being loaded", {"Retry-After": "1"})
    return PlainTextResponse("ok\n")


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse, responses=declared())
async def metrics(request: Request) -> Response:
    """All metrics, in Prometheus's text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
