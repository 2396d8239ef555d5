"""Steps of a masked autoencoder beside ViTMAE and the GEMM limit: ``python -m benchmarks.raster_training``.

Both have the same sizes, the same tokens and the same share of them hidden. Ours reads bands by wavelength
and masks what holds no data; ViTMAE (transformers) gets the same chips with their gaps filled, since it knows
none. Steps of both and products that tell the machine's limit take turns.
"""

from __future__ import annotations

import json
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from benchmarks.ledger import arguments, measured, processor
from domains.contract import Sample, digest_of
from domains.geospatial import GEOSPATIAL, BandSpec, RasterEncoding
from domains.geospatial.sensors import SENTINEL_2
from models.encoder import Batch, parameter_count
from models.pretraining import PretrainingModel
from models.rasters.vit import RasterViT
from models.settings import Size

BANDS = ("B2", "B3", "B4", "B8", "B12")
HIDDEN = 0.75
GEMM = 1024
WARM_UP = 3
GAPS = 0.05
"""Share of the patches without any data."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
    parser.add_argument("--chip", type=int, default=64, help="pixels on a side")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    told = {name: getattr(options, name) for name in ("size", "chip", "patch", "batch", "steps", "precision")}
    line = measured(
        "raster_training",
        code=[
            "models/rasters",
            "models/encoder.py",
            "models/pretraining.py",
            "benchmarks/raster_training.py",
        ],
        data=digest_of([options.chip, options.batch, options.steps, options.seed]),
        seed=options.seed,
        device=torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        options={**told, "threads": options.threads, "torch": torch.__version__},
        again=options.again,
        measure=lambda: time_training(**told, seed=options.seed, device=device),
    )
    print(json.dumps(line))


def time_training(
    size: Size, chip: int, patch: int, batch: int, steps: int, precision: str, seed: int, device: torch.device
) -> dict[str, Any]:
    """Rates are sums over sums, so that what other processes take lowers all alike."""
    torch.manual_seed(seed)
    spec = RasterEncoding(chip=chip, patch=patch, bands=bands())
    samples = chips(batch * 4, chip, patch, seed)
    ours = ours_of(size, spec, samples).to(device).train()
    peer = peer_of(size, spec).to(device).train()
    batches = [
        ours.encoder.collate([samples[place] for place in order])
        for order in np.arange(len(samples)).reshape(-1, batch)
    ]
    filled = [
        ours.encoder.reader.standardise(it["pixels"].to(device), it["source"]).nan_to_num(0.0)
        for it in batches
    ]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.randn(GEMM, GEMM, device=device, dtype=dtype)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def stepper(model: nn.Module) -> Any:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step(inputs: Any) -> None:
            with torch.autocast(device.type, dtype, enabled=precision == "bf16"):
                loss = model(inputs)["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

        return step

    step_ours, step_peer = stepper(ours), stepper(peer)
    seconds: dict[str, list[float]] = {"ours": [], "peer": [], "gemm": []}
    for turn in range(steps + WARM_UP):
        place = turn % len(batches)
        began = clock()
        step_ours({name: tensor.to(device) for name, tensor in batches[place].items()})
        between = clock()
        step_peer(filled[place])
        stepped = clock()
        torch.mm(square, square)
        for name, took in zip(seconds, (between - began, stepped - between, clock() - stepped), strict=True):
            if turn >= WARM_UP:
                seconds[name].append(took)
    limit = 2 * GEMM**3 * steps / sum(seconds["gemm"])
    rates = {name: batch * steps / sum(seconds[name]) for name in ("ours", "peer")}
    flops = 3 * forward_flops(ours, batches[0]) / batch
    return {
        "images_per_s": round(rates["ours"], 1),
        "vitmae_images_per_s": round(rates["peer"], 1),
        "ours_over_vitmae": round(rates["ours"] / rates["peer"], 3),
        "share_of_gemm_limit": round(rates["ours"] * flops / limit, 3),
        "gemm_gflops": round(limit / 1e9, 1),
        "mflop_per_image": round(flops / 1e6, 1),
        "median_step_ms": round(1e3 * median(seconds["ours"]), 1),
        "tokens": (chip // patch) ** 2,
        "parameters": parameter_count(ours),
        "vitmae_parameters": parameter_count(peer),
    }


def bands() -> tuple[BandSpec, ...]:
    return tuple(SENTINEL_2[name].model_copy(update={"gsd": 20.0}) for name in BANDS)


def chips(count: int, chip: int, patch: int, seed: int) -> list[Sample]:
    """Reflectances of a smooth surface, some patches of which nothing was seen."""
    random = np.random.default_rng(seed)
    coarse = random.normal(1500, 400, (count, len(BANDS), chip // patch, chip // patch))
    pixels = np.kron(coarse, np.ones((patch, patch))) + random.normal(0, 100, (count, len(BANDS), chip, chip))
    unseen = np.kron(random.random((count, 1, chip // patch, chip // patch)) < GAPS, np.ones((patch, patch)))
    pixels[np.broadcast_to(unseen.astype(bool), pixels.shape)] = np.nan
    return [{"pixels": each.astype(np.float32)} for each in pixels]


def ours_of(size: Size, spec: RasterEncoding, samples: list[Sample]) -> PretrainingModel:
    encoder = RasterViT.create(size, spec)
    encoder.fit_input(spec, samples)
    # What both fill in. Edges, statistics and a second view are of ours alone.
    patch = [target for target in GEOSPATIAL.pretraining_targets(spec) if target.name == "patch"]
    return PretrainingModel(encoder, patch, mask_ratio=HIDDEN)


def peer_of(size: Size, spec: RasterEncoding) -> nn.Module:
    """ViTMAE of the same width and depth, encoder and decoder."""
    preset = RasterViT.presets[size]
    width, heads, inner = (preset[it] for it in ("hidden_size", "num_attention_heads", "intermediate_size"))
    config = ViTMAEConfig(
        image_size=spec.chip, patch_size=spec.patch, num_channels=len(spec.bands), mask_ratio=HIDDEN,
        hidden_size=width, num_hidden_layers=preset["num_hidden_layers"], num_attention_heads=heads,
        intermediate_size=inner, decoder_hidden_size=width // 2, decoder_num_attention_heads=heads // 2,
        decoder_num_hidden_layers=RasterViT.config_class().decoder_layers,
        decoder_intermediate_size=inner // 2, norm_pix_loss=True,
    )  # fmt: skip
    return ViTMAEForPreTraining(config)


def forward_flops(model: PretrainingModel, batch: Batch) -> float:
    """Of the matrix products of a forward pass: layers, scores and the mixing of values, on tokens alone."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear)  # noqa: S101 - narrows the type
        total += 2 * inputs[0].numel() * layer.out_features

    encoder: Any = model.encoder
    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Linear)]
    device = next(model.parameters()).device
    with torch.no_grad():
        model({name: tensor.to(device) for name, tensor in batch.items()})
    for hook in hooks:
        hook.remove()
    images, _, height, width = batch["pixels"].shape
    tokens = (height // encoder.patch) * (width // encoder.patch)
    shown, config = round(tokens * (1 - model.mask_ratio)), encoder.config
    total += 4 * images * shown**2 * config.hidden_size * config.num_hidden_layers
    total += 4 * images * tokens**2 * (config.hidden_size // 2) * config.decoder_layers
    return total + 2 * images * shown * encoder.reader.filters.basis.shape[1] * encoder.reader.count(0)


if __name__ == "__main__":
    main()
