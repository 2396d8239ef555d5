"""TorchGeo's own way from files to batches, timed. Run by the peers' interpreter: it imports nothing of ours.

Reads a JSON object per line (``paths``, ``chip``, ``batch``, ``chips``, ``seed``), and answers each with the
seconds that an epoch of so many chips took, which begins with no file open, and those of the processor.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter, process_time
from typing import Any

import torch

# torchvision's wheels are linked with CUDA. Beside a torch for the CPU its operators are missing, and it
# cannot be imported unless somebody says that there are these two. Reading rasters uses none of them.
OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torch.utils.data import DataLoader  # noqa: E402
from torchgeo.datasets import RasterDataset, stack_samples  # noqa: E402
from torchgeo.samplers import RandomGeoSampler  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(time_epoch(json.loads(line))), flush=True)


def time_epoch(asked: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and chips that came."""
    dataset = RasterDataset(asked["paths"])
    generator = torch.Generator().manual_seed(asked["seed"])
    sampler = RandomGeoSampler(dataset, asked["chip"], asked["chips"], generator=generator)
    loader = DataLoader(
        dataset, batch_size=asked["batch"], sampler=sampler, num_workers=0, collate_fn=stack_samples
    )
    started, busy, chips = perf_counter(), process_time(), 0
    for batch in loader:
        side = asked["chip"]
        if batch["image"].shape[2:] != (side, side):
            raise AssertionError(batch["image"].shape)
        chips += len(batch["image"])
    return perf_counter() - started, process_time() - busy, chips


if __name__ == "__main__":
    main()
