"""Register every flow on a Prefect work pool, so that each run becomes a job of its own.

The runner's deployments are called ``groundwork``; these are called ``kubernetes`` and stand beside them.
Needs ``PREFECT_API_URL``.
"""

from __future__ import annotations

import asyncio
import os
import sys

from prefect.client.orchestration import get_client
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound

from domains.contract import domain_names
from flows.deployments import build_flow
from flows.heartbeats import watch
from flows.settings import KINDS

NAME = "kubernetes"


async def deploy(pool: str) -> None:
    """Register the flows of every domain on ``pool``, and have their silent runs ended."""
    async with get_client() as client:
        try:
            await client.read_work_pool(pool)
        except ObjectNotFound:
            sys.exit(f"error: there is no work pool {pool!r}: make it first, as docker/README.md shows")
    names = []
    for domain_name in domain_names():
        for kind in KINDS:
            deployment = await build_flow(kind, domain_name).ato_deployment(
                name=NAME,
                tags=[domain_name, kind],
                work_pool_name=pool,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
            await deployment.aapply()
            names.append(f"{kind}-{domain_name}")
            print(f"{names[-1]}/{NAME} runs on {pool}")
    await watch(names)


if __name__ == "__main__":
    if "PREFECT_API_URL" not in os.environ:
        sys.exit("error: PREFECT_API_URL is not set: give the address of the Prefect server, ending in /api")
    asyncio.run(deploy(sys.argv[1] if len(sys.argv) > 1 else "groundwork"))
