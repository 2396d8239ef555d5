"""The API beside a plain FastAPI endpoint around the same predictor: ``python -m benchmarks.serving``.

Each server has a process of its own; clients here keep their connections and send one molecule a request.
The two are asked in turn, round after round.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import socket
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.ledger import arguments, measured, processor
from benchmarks.molecules import SPEC, open_molecules, sample_smiles
from domains.contract import SplitSpec, Target, TaskSpec
from groundwork.api.app import create_app
from models.encoder import create_encoder
from models.history import Entry
from models.predictor import Lineage, Predictor, VersionContract
from models.registry import Version
from models.settings import Size
from models.tuning import TaskModel

NAME = "benchmark"
CLIENTS = (1, 32)
TARGETS = (Target(name="value", kind="regression", unit="1"),)


class Question(BaseModel):
    """What the plain endpoint is asked."""

    inputs: list[str]


class OneVersion:
    """A registry that holds one version, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = Version(NAME, 1, ("champion",), "", {"kind": "task"}, datetime.now(UTC))

    def names(self) -> list[str]:
        return [NAME]

    def versions(self, name: str) -> list[Version]:
        return [self.version]

    def history(self, name: str) -> list[Entry]:
        return []

    def resolve(self, reference: str) -> Version:
        return self.version

    def load(self, version: Version) -> Predictor:
        return Predictor.load(self.folder)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each server, load and round")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each server")
    options = parser.parse_args()
    smiles, digest = sample_smiles(open_molecules(None), 2000, options.seed)
    line = measured(
        "serving",
        code=[
            "groundwork/api",
            "models",
            "domains/molecules",
            "benchmarks/molecules.py",
            "benchmarks/serving.py",
        ],
        data=digest,
        seed=options.seed,
        device=processor(),
        options={
            "size": options.size,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "threads": options.threads,
        },
        again=options.again,
        measure=lambda: compare(
            smiles, options.size, options.seed, options.rounds, options.seconds, options.threads
        ),
    )
    print(json.dumps(line))


def compare(
    smiles: list[str], size: Size, seed: int, rounds: int, seconds: float, threads: int
) -> dict[str, Any]:
    """Requests per second and median latency of both servers; medians over rounds."""
    with TemporaryDirectory() as folder:
        version = Path(folder) / "version"
        save_version(version, size, seed)
        context = multiprocessing.get_context("spawn")
        paths = {"groundwork": f"/v1/models/{NAME}/predict", "plain": "/predict"}
        ports = {kind: free_port() for kind in paths}
        servers = [
            context.Process(target=serve, args=(kind, version, ports[kind], threads), daemon=True)
            for kind in paths
        ]
        for server in servers:
            server.start()
        try:
            answers = {kind: wait_for_answer(ports[kind], paths[kind], smiles[:64]) for kind in paths}
            check_same(answers["groundwork"], answers["plain"])
            figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
            for turn in range(rounds + 1):
                for clients in CLIENTS:
                    for kind, path in paths.items():
                        figure = load(ports[kind], path, smiles, clients, seconds)
                        if turn:  # the first is for warming up
                            figures.setdefault((kind, clients), []).append(figure)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.join(20)
    described: dict[str, Any] = {}
    for (kind, clients), pairs in figures.items():
        described[f"{kind}_{clients}_per_s"] = round(median(rate for rate, _ in pairs), 1)
        described[f"{kind}_{clients}_ms"] = round(1e3 * median(latency for _, latency in pairs), 2)
    for clients in CLIENTS:
        ours, plain = figures["groundwork", clients], figures["plain", clients]
        ratios = [one[0] / other[0] for one, other in zip(ours, plain, strict=True)]
        described[f"over_plain_{clients}"] = round(median(ratios), 2)
    return described


def save_version(folder: Path, size: Size, seed: int) -> None:
    """A version with random weights: speed does not depend on what was learnt."""
    torch.manual_seed(seed)
    lineage = Lineage(
        dataset="none", dataset_origin="none", dataset_digest="", rows=0, rejects=0,
        foundation="none", code="benchmark", mlflow_run="", flow_run="",
    )  # fmt: skip
    contract = VersionContract(
        kind="task",
        domain="molecules",
        encoding=SPEC.model_dump(mode="json"),
        encoding_digest=SPEC.digest,
        task=TaskSpec(domain="molecules", targets=TARGETS, split=SplitSpec(method="scaffold", seed=0)),
        split_id="none",
        lineage=lineage,
    )
    encoder = create_encoder("molecules", size, SPEC)
    Predictor.save(folder, contract, TaskModel(encoder, TARGETS, linear_head=False))


def serve(kind: str, folder: Path, port: int, threads: int) -> None:
    """One of the two servers, until it is ended."""
    torch.set_num_threads(threads)
    if kind == "groundwork":
        app = create_app(OneVersion(folder), datasets=folder.parent)
    else:
        app = plain_app(Predictor.load(folder))
    uvicorn.run(app, port=port, log_level="critical", access_log=False)


def plain_app(predictor: Predictor) -> FastAPI:
    """What one writes first: an endpoint that answers each request by itself, one after another."""
    app = FastAPI()

    async def predict(question: Question) -> list[dict[str, Any]]:
        answers = predictor.answer_values(question.inputs)
        return [
            {"reason": reason, "predictions": predictor.answer(row)}
            for row, reason in zip(answers.outputs, answers.reasons, strict=True)
        ]

    app.post("/predict")(predict)
    return app


def load(port: int, path: str, smiles: Sequence[str], clients: int, seconds: float) -> tuple[float, float]:
    """Requests per second and median latency (s) of ``clients`` that each ask again once answered."""
    latencies: list[float] = []
    failures: list[int] = []
    began = perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for value in cycle(smiles[number * 50 % len(smiles) :]):
            started = perf_counter()
            status, _ = ask(connection, path, [value])
            if status != 200:
                failures.append(status)
            if perf_counter() - began > seconds:  # a late answer is none of this round's
                break
            latencies.append(perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed with {set(failures)}")
    if not latencies:
        raise RuntimeError(f"no request was answered within {seconds} s: give more --seconds")
    return len(latencies) / seconds, median(latencies)


def ask(connection: http.client.HTTPConnection, path: str, inputs: list[str]) -> tuple[int, bytes]:
    body = json.dumps({"inputs": inputs})
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def wait_for_answer(port: int, path: str, inputs: list[str]) -> Any:
    deadline = monotonic() + 120
    while True:
        try:
            status, body = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), path, inputs)
            if status == 200:
                return json.loads(body)
        except OSError:
            status = 0
        if monotonic() > deadline:
            raise RuntimeError(f"no answer at port {port} (status {status})")
        sleep(0.2)


def check_same(ours: Any, plain: Any) -> None:
    """Speed of wrong answers is worth nothing."""
    for one, other in zip(ours["results"], plain, strict=True):
        mine, peers = (each["predictions"]["value"]["prediction"] for each in (one, other))
        if abs(mine - peers) > 1e-4:
            raise RuntimeError(f"the two servers disagree: {mine} and {peers}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
