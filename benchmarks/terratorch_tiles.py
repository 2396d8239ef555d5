"""TerraTorch's tiled inference, run by the interpreter of its own environment.

``python benchmarks/terratorch_tiles.py MODEL SCENE MAP CHIP BATCH THREADS``: MODEL is traced by torch for
BATCH chips and gives probabilities [B, 1, H, W]. Prints as JSON the seconds from the scene to the map,
those of the model in them, and the most memory that was resident.

Of TerraTorch only the module of tiled inference and what it calls is loaded: its package, as a whole, wants
torchvision and some forty other packages, none of which tiles anything.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import rasterio
import torch

NOT_NEEDED = {
    "torchvision.models.detection.image_list": ["ImageList"],
    "torchvision.models.detection.transform": ["GeneralizedRCNNTransform"],
    "terratorch.registry": ["BACKBONE_REGISTRY"],
}
"""What the helpers of TerraTorch's models import for other tasks."""


def tiled_inference() -> Any:
    spec = importlib.util.find_spec("terratorch")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("terratorch is not installed here")
    root = Path(spec.submodule_search_locations[0])
    for name in ("terratorch", "terratorch.models", "terratorch.tasks"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    for name, members in NOT_NEEDED.items():
        stub = types.ModuleType(name)
        for member in members:
            setattr(stub, member, type(member, (), {}))
        sys.modules[name] = stub
    return importlib.import_module("terratorch.tasks.tiled_inference").tiled_inference


def peak_gb() -> float:
    """Most memory that was resident: getrusage would tell of the parent, if that had more."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main() -> None:
    model, scene, path, chip, batch, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tiled, answering = tiled_inference(), torch.jit.load(model)
    began, of_model = perf_counter(), 0.0

    def answer(chips: torch.Tensor) -> torch.Tensor:
        nonlocal of_model
        before = perf_counter()
        # The last batch may be smaller than what was traced.
        filled = torch.cat([chips, chips[:1].expand(int(batch) - len(chips), -1, -1, -1)])
        answered = answering(filled)[: len(chips)]
        of_model += perf_counter() - before
        return answered

    with rasterio.open(scene) as file:
        profile = {name: file.profile[name] for name in ("height", "width", "crs", "transform")}
        pixels = torch.from_numpy(file.read(out_dtype="float32"))[None]
    answered = tiled(answer, pixels, crop=int(chip), stride=int(chip) - int(chip) // 4, batch_size=int(batch))
    second = answered[0, 0].numpy()
    burnt = second >= 0.5
    with rasterio.open(
        path, "w", driver="COG", count=2, dtype="uint8", compress="deflate", **profile
    ) as file:
        file.write(burnt.astype(np.uint8), 1)
        file.write(np.rint(100 * np.where(burnt, second, 1 - second)).astype(np.uint8), 2)
    seconds = perf_counter() - began
    print(
        json.dumps(
            {"seconds": round(seconds, 3), "model_s": round(of_model, 3), "peak_gb": round(peak_gb(), 3)}
        )
    )


if __name__ == "__main__":
    main()
