"""The routes of the service."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from domains.contract import GroundworkError
from groundwork import __version__
from groundwork.api import schemas, uploads
from groundwork.api.access import Guard, presents_key
from groundwork.api.announcing import announce
from groundwork.api.answering import answer
from groundwork.api.batching import QueueFull
from groundwork.api.metrics import CountRequests, Metrics
from groundwork.api.registry import NotRegistered, Registry
from groundwork.api.serving import CannotServe, RegistryUnreachable, Serving

if TYPE_CHECKING:
    from models.registry import Version

log = logging.getLogger(__name__)

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": description}
    for status, description in {
        401: "No API key, or a wrong one",
        404: "No such name, version or alias",
        413: "More than one request may carry",
        422: "The request is malformed",
        500: "The version cannot be served",
        503: "Too busy, or MLflow does not answer; try again after `Retry-After` seconds",
    }.items()
}
MLFLOW_STATES: dict[bool | None, Literal["reachable", "unreachable", "not asked yet"]] = {
    True: "reachable",
    False: "unreachable",
    None: "not asked yet",
}
CLIENT_LEFT = 499
"""nginx's word for a client that left before it was answered. Nobody reads it but the metrics."""
UPLOAD_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/zip": {"schema": {"type": "string", "format": "binary"}},
        "text/csv": {"schema": {"type": "string"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
    },
}
UPLOAD_SETTINGS = {
    "name": "settings",
    "in": "query",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "description": "Settings of the domain that the file cannot be opened without, such as `sensor=hls` for "
    "rasters that do not tell their bands. They are not kept: a form asks for them again.",
}
"""Any other name in the query; which there are is the domain's to say."""
DESCRIPTION = """
Predictions of registered model versions, and datasets for training.

An answer comes from the version that holds the alias `champion`, unless the body asks for another
`alias` or a `version`; it names the version, so that every figure can be traced.
"""


@dataclass(frozen=True)
class Limits:
    """What one request may carry."""

    inputs: int = 10_000
    request_bytes: int = 64 * 2**20
    """Two of the largest images, and hundreds of ordinary chips."""
    upload_bytes: int = 8 * 2**30
    """Scenes are large; an upload goes to the disk, whose free space is watched."""


def create_app(
    registry: Registry,
    *,
    datasets: Path,
    api_key: str | None = None,
    limits: Limits = Limits(),
    poll_seconds: float = 2.0,
) -> FastAPI:
    """The application.

    Args:
        registry: where names, versions and their predictors come from.
        datasets: folder that uploads go to.
        api_key: asked of every request but ``/healthz`` when given.
        limits: what one request may carry.
        poll_seconds: how often the registry is asked about what is served.
    """
    metrics = Metrics()
    started = time.monotonic()
    serving = Serving(registry, metrics, poll_seconds=poll_seconds)
    # Reading holds Python's lock most of the time, so that more threads would only wait for each other.
    readers = ThreadPoolExecutor(2, thread_name_prefix="reader")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        uploads.remove_leftovers(datasets)
        serving.start()
        yield
        serving.close()
        readers.shutdown(wait=False, cancel_futures=True)

    app = FastAPIOffline(
        title="Groundwork",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan,
        responses=_errors(422),
    )
    app.add_middleware(
        Guard,
        api_key=api_key,
        max_request_bytes=limits.request_bytes,
        max_upload_bytes=limits.upload_bytes,
    )
    app.add_middleware(CountRequests, metrics=metrics)
    _explain_errors(app)

    @app.get("/v1/models", tags=["models"], responses=_errors(401, 503))
    async def list_models() -> schemas.ModelsOut:
        """Every registered name with its versions."""
        return schemas.ModelsOut(
            models=[_model(name, found, serving) for name, found in await serving.catalogue()]
        )

    @app.get("/v1/models/{name}", tags=["models"], responses=_errors(401, 404, 503))
    async def show_model(name: str) -> schemas.ModelDetails:
        """One registered name with its versions, and what was decided on them."""
        [(name, found)] = await serving.catalogue(name)
        history = [
            schemas.HistoryEntry(**entry.model_dump(by_alias=False)) for entry in await serving.history(name)
        ]
        return schemas.ModelDetails(**_model(name, found, serving).model_dump(), history=history)

    @app.post(
        "/v1/models/{name}/predict",
        tags=["models"],
        response_model=None,
        responses={200: {"model": schemas.PredictResponse}, **_errors(401, 404, 413, 422, 500, 503)},
    )
    async def predict(
        name: str,
        body: Annotated[schemas.PredictRequest, Body(openapi_examples=schemas.PREDICT_EXAMPLES)],
        request: Request,
    ) -> Response:
        """One result for each input, in order: a prediction, or the reason why there is none.

        A foundation answers with its embedding.
        """
        if "@" in name or "/" in name:
            raise HTTPException(422, "the path takes a bare name; write the alias or version into the body")
        if len(body.inputs) > limits.inputs:
            raise HTTPException(
                413, f"{len(body.inputs)} inputs; at most {limits.inputs} go into one request"
            )
        alias = body.alias if body.version is None else None
        reference = f"{name}/{body.version}" if alias is None else f"{name}@{alias}"

        async def respond() -> Response:
            async with serving.use(reference) as loaded:
                version = loaded.version
                results = await answer(loaded, body.inputs, readers)
            for status in ("ok", "rejected"):
                count = sum(result["status"] == status for result in results)
                metrics.items.labels(name, str(version.version), status).inc(count)
            model = schemas.AnsweredBy(
                name=version.name,
                version=version.version,
                alias=alias,
                run_id=version.run_id,
                beats_floor=version.beats_floor,
                unit=version.tags.get("unit"),
                targets=_targets(version),
            )
            # Not through a response model: validating ten thousand results would hold up the event loop.
            return JSONResponse({"model": model.model_dump(), "results": results})

        return await _unless_disconnected(request, respond())

    @app.put(
        "/v1/datasets/{name}",
        tags=["datasets"],
        status_code=201,
        openapi_extra={"requestBody": UPLOAD_BODY, "parameters": [UPLOAD_SETTINGS]},
        responses={
            200: {"model": schemas.UploadOut, "description": "An older dataset of that name was replaced"},
            507: {"model": schemas.Problem, "description": "No space left"},
            **_errors(401, 413, 422),
        },
    )
    async def put_dataset(
        name: str,
        request: Request,
        response: Response,
        format: Annotated[
            str | None,
            Query(description="End of the file's name (csv, zip, tif); else its name or type tells"),
        ] = None,
        domain: Annotated[str, Query(description="The domain that is to read it")] = "molecules",
    ) -> schemas.UploadOut:
        """Send a file as the raw body or as a form's file; forms then know it by its name.

        It is opened as its domain does before it is kept: a table, or for rasters a GeoTIFF, a NetCDF cube
        or a zip archive of scenes, with `images/` beside `masks/` or with one folder for each class.
        """
        declared = request.headers.get("content-length", "")
        asked = dict(request.query_params)
        settings = {key: value for key, value in asked.items() if key not in ("format", "domain")}
        incoming = await asyncio.to_thread(  # a domain that is named for the first time is imported
            announce,
            name,
            domain,
            settings,
            format,
            request.headers.get("content-type", ""),
            int(declared) if declared.isdecimal() else 0,
        )
        entry, replaced = await uploads.receive(incoming, request.stream(), datasets)
        response.status_code = 200 if replaced else 201
        return entry

    @app.get("/v1/datasets", tags=["datasets"], responses=_errors(401))
    async def list_datasets() -> schemas.DatasetsOut:
        """Datasets that forms and commands can name."""
        return schemas.DatasetsOut(datasets=uploads.listing(datasets))

    @app.get("/healthz", tags=["operation"])
    async def health(request: Request) -> schemas.Health:
        """200 while the process lives; `degraded` when MLflow is away or a version failed its check."""
        state = serving.state()
        healthy = serving.mlflow_reachable is not False and not state["failed"]
        report = schemas.Health(
            status="ok" if healthy else "degraded",
            mlflow=MLFLOW_STATES[serving.mlflow_reachable],
            uptime_seconds=round(time.monotonic() - started, 1),
        )
        if api_key and not presents_key(request.headers, api_key):
            return report
        return report.model_copy(update=state)

    @app.get("/metrics", tags=["operation"], response_class=Response)
    def show_metrics() -> Response:
        """Counters and gauges for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _unless_disconnected(request: Request, work: Awaitable[Response]) -> Response:
    """The response of ``work``, which is cancelled when the client leaves before it is ready."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.create_task(disconnected())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        log.info("a client left before it was answered")
        return Response(status_code=CLIENT_LEFT)
    finally:
        working.cancel()
        watching.cancel()


def _explain_errors(app: FastAPI) -> None:
    """Every error is {"error": "one line"}, and nothing of the inside shows."""
    statuses: list[tuple[type[GroundworkError], int, dict[str, str]]] = [
        (NotRegistered, 404, {}),
        (QueueFull, 503, {"Retry-After": "1"}),
        (RegistryUnreachable, 503, {"Retry-After": "2"}),
        (CannotServe, 500, {}),
        (uploads.DiskFull, 507, {}),
    ]

    @app.exception_handler(GroundworkError)
    async def groundwork_error(request: Request, error: GroundworkError) -> JSONResponse:
        for kind, status, headers in statuses:
            if isinstance(error, kind):
                return JSONResponse({"error": str(error)}, status, headers)
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse({"error": f"{where}: {first['msg']}" if where else str(first["msg"])}, 422)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(
            {"error": "something went wrong inside; the service's log holds the details"}, 500
        )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in statuses}


def _model(name: str, versions: list[Version], serving: Serving) -> schemas.ModelOut:
    return schemas.ModelOut(
        name=name,
        kind=versions[0].tags.get("kind") if versions else None,
        champion=next((each.version for each in versions if "champion" in each.aliases), None),
        versions=[_version(each, serving) for each in versions],
    )


def _version(version: Version, serving: Serving) -> schemas.VersionOut:
    tags = version.tags
    return schemas.VersionOut(
        name=version.name,
        version=version.version,
        aliases=list(version.aliases),
        kind=tags.get("kind"),
        domain=tags.get("domain"),
        targets=_targets(version),
        unit=tags.get("unit"),
        beats_floor=version.beats_floor,
        run_id=version.run_id,
        foundation=tags.get("foundation"),
        dataset_digest=tags.get("dataset_digest"),
        split_id=tags.get("split_id"),
        created=version.created,
        loaded=serving.is_loaded(version),
    )


def _targets(version: Version) -> list[schemas.TargetOut]:
    return [
        schemas.TargetOut.model_validate(target) for target in json.loads(version.tags.get("targets", "[]"))
    ]
