"""From a scene to its map: ``python -m benchmarks.scene_inference``.

Maps a large and a small scene, each in a process of its own, with a model of random weights. The model alone
is its forward passes in that very run, on the tiles and overlaps that the map needs. TerraTorch's
tiled inference gets the same weights and a scene that fits in memory, which ours maps beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rio_cogeo.cogeo import cog_validate
from torch import nn

from benchmarks import generated_scenes, peers
from benchmarks.ledger import ROOT, arguments, measured, processor
from domains.contract import digest_of
from domains.geospatial import RasterEncoding
from models.predictor import CPU_PIXELS, Predictor

TURNS = 3
CODE = [
    *(f"domains/geospatial/{name}.py" for name in ("blending", "cog", "geotiffs", "map_file", "map_layers")),
    *(f"domains/geospatial/{name}.py" for name in ("maps", "quick_look", "scenes", "unfinished")),
    *("models/rasters", "models/predictor.py", "models/tuning.py", "models/pixel_head.py"),
    *(f"benchmarks/{name}.py" for name in ("generated_scenes", "mapping", "scene_inference")),
    "benchmarks/terratorch_tiles.py",
]


class Probabilities(nn.Module):
    """A version as TerraTorch calls it: chips [B, C, H, W] -> probabilities [B, 1, H, W]."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        [self.model] = predictor.models

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        source = pixels.new_zeros(pixels.shape[0], dtype=torch.long)
        answered = self.model({"pixels": pixels, "source": source})
        outputs: torch.Tensor = self.model.outputs(answered["logits"])
        return outputs.transpose(1, 2).unflatten(2, (pixels.shape[2], pixels.shape[3]))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="pixels on a side of the large scene")
    parser.add_argument("--small-side", type=int, default=5_000)
    parser.add_argument("--peer-side", type=int, default=3_000, help="of the scene that TerraTorch maps, too")
    parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
    parser.add_argument("--chip", type=int, default=256, help="pixels on a side")
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    options = parser.parse_args()
    names = ("side", "small_side", "peer_side", "size", "chip", "patch", "threads")
    told = {name: getattr(options, name) for name in names}
    line = measured(
        "scene_inference",
        code=CODE,
        data=digest_of([options.side, options.small_side, options.peer_side, options.seed]),
        seed=options.seed,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        options={**told, "torch": torch.__version__, "peer": peers.TERRATORCH},
        again=options.again,
        measure=lambda: time_maps(**told, seed=options.seed),
    )
    print(json.dumps(line))


def time_maps(
    side: int, small_side: int, peer_side: int, size: Any, chip: int, patch: int, threads: int, seed: int
) -> dict[str, Any]:
    peers.CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=peers.CACHE) as temporary:
        folder = Path(temporary)
        predictor = generated_scenes.model(folder / "model", size, chip, patch, seed)
        large, small = (
            _map(folder, generated_scenes.scene(pixels, seed), f"{pixels}.tif", threads)
            for pixels in (side, small_side)
        )
        is_valid, errors, warnings = cog_validate(folder / f"{side}.tif", quiet=True)
        beside, peer = _in_turn(folder, predictor, generated_scenes.scene(peer_side, seed), chip, threads)
    return {
        "share_of_model_only": round(large["model_s"] / large["stream_s"], 3),
        "peak_gb": large["peak_gb"],
        "peak_large_over_small": round(large["peak_gb"] / small["peak_gb"], 3),
        "ours_over_terratorch": round(peer["seconds"] / (beside["stream_s"] + beside["finish_s"]), 3),
        "is_valid_cog": bool(is_valid),
        "cog_says": [*errors, *warnings],
        "model_s": large["model_s"],
        "stream_s": large["stream_s"],
        "finish_s": large["finish_s"],
        "small_share_of_model_only": round(small["model_s"] / small["stream_s"], 3),
        "beside_terratorch_s": round(beside["stream_s"] + beside["finish_s"], 3),
        "beside_terratorch_model_s": beside["model_s"],
        "beside_terratorch_peak_gb": beside["peak_gb"],
        "terratorch_s": peer["seconds"],
        "terratorch_model_s": peer["model_s"],
        "terratorch_peak_gb": peer["peak_gb"],
    }


def _map(folder: Path, scene: Path, name: str, threads: int) -> dict[str, float]:
    arguments = [folder / "model", scene, folder / name, threads]
    return _told([sys.executable, "-m", "benchmarks.mapping", *map(str, arguments)])


def traced(predictor: Predictor, bands: int, chip: int, batch: int) -> torch.jit.ScriptModule:
    """The version as a module that needs nothing but torch, for batches of just that size."""
    example = torch.rand(batch, bands, chip, chip) * 3000
    with torch.inference_mode():
        return torch.jit.trace(Probabilities(predictor).eval(), example, check_trace=False)


def _in_turn(
    folder: Path, predictor: Predictor, scene: Path, chip: int, threads: int
) -> tuple[dict[str, float], dict[str, float]]:
    """What ours and TerraTorch took for one scene, medians of ``TURNS``, in which they change places."""
    encoding = predictor.spec
    assert isinstance(encoding, RasterEncoding)  # noqa: S101 - narrows the type
    batch = max(1, CPU_PIXELS // chip**2)  # as ours: with more, theirs is slower, too
    torch.jit.save(traced(predictor, len(encoding.bands), chip, batch), str(folder / "model.pt"))
    script = ROOT / "benchmarks" / "terratorch_tiles.py"
    arguments = [folder / "model.pt", scene, folder / "terratorch.tif", chip, batch, threads]
    command = [str(peers.terratorch_python()), str(script), *map(str, arguments)]
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(_map(folder, scene, "ours.tif", threads))
        theirs.append(_told(command))
    return _medians(ours), _medians(theirs)


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _told(command: list[str]) -> dict[str, float]:
    """What a child says in its last line."""
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    main()
