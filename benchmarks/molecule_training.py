"""Pretraining steps on real molecules, beside the GEMM limit: ``python -m benchmarks.molecule_training``.

The share counts the matrix products of the layers and of attention on real atoms only, forward and backward
(three times the forward); padding, softmax, normalisation and the optimiser count as loss.
"""

from __future__ import annotations

import json
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks.ledger import arguments, measured, processor
from benchmarks.molecules import SPEC, encode_all, open_molecules, sample_smiles
from domains.contract import Sample
from domains.molecules import MOLECULES
from models.encoder import Batch, create_encoder, parameter_count
from models.pretraining import PretrainingModel
from models.settings import Size

BATCH = 64
GEMM = 1024
WARM_UP = 3


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("path", nargs="?", help="a file of molecules; default: the embedded corpus")
    parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
    parser.add_argument("--steps", type=int, default=40, help=f"training steps of {BATCH} molecules")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limit = BATCH * (options.steps + WARM_UP)
    smiles, digest = sample_smiles(open_molecules(options.path), limit, options.seed)
    line = measured(
        "molecule_training",
        code=[
            "models",
            "domains/molecules/encoding.py",
            "benchmarks/molecules.py",
            "benchmarks/molecule_training.py",
        ],
        data=digest,
        seed=options.seed,
        device=torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        options={
            "size": options.size,
            "steps": options.steps,
            "threads": options.threads,
            "precision": options.precision,
            "torch": torch.__version__,
        },
        again=options.again,
        measure=lambda: time_training(smiles, options.size, options.seed, options.precision, device),
    )
    print(json.dumps(line))


def time_training(
    smiles: list[str], size: Size, seed: int, precision: str, device: torch.device
) -> dict[str, Any]:
    """Each step is followed by one product that tells the machine's limit just then.

    Rates are sums over sums on both sides, so that what other processes take lowers both alike.
    """
    torch.manual_seed(seed)
    samples = encode_all(smiles, describe=True)
    encoder = create_encoder("molecules", size, SPEC)
    model = PretrainingModel(encoder, MOLECULES.pretraining_targets(SPEC), mask_ratio=0.4)
    model.fit_scaling(samples)
    flops = 3 * forward_flops(model, samples[:256]) / 256
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)  # as transformers' Trainer has it
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.randn(GEMM, GEMM, device=device, dtype=dtype)
    # The order that training takes: batches of molecules of like size.
    order = list(LengthGroupedSampler(BATCH, lengths=[encoder.tokens(sample) for sample in samples]))

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, dtype, enabled=precision == "bf16"):
            loss = model({name: tensor.to(device) for name, tensor in batch.items()})["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    collating, stepping, products = [], [], []
    for start in range(0, len(order), BATCH):
        began = clock()
        batch = encoder.collate([samples[index] for index in order[start : start + BATCH]])
        collated = clock()
        step(batch)
        stepped = clock()
        torch.mm(square, square)
        ended = clock()
        collating.append(collated - began)
        stepping.append(stepped - began)
        products.append(ended - stepped)
    seconds = sum(stepping[WARM_UP:])
    rate = (len(order) - WARM_UP * BATCH) / seconds
    limit = 2 * GEMM**3 * len(products[WARM_UP:]) / sum(products[WARM_UP:])
    return {
        "molecules_per_s": round(rate, 1),
        "median_step_ms": round(1e3 * median(stepping[WARM_UP:]), 1),
        "collate_share": round(sum(collating[WARM_UP:]) / seconds, 4),
        "parameters": parameter_count(model),
        "mflop_per_molecule": round(flops / 1e6, 1),
        "gemm_gflops": round(limit / 1e9, 1),
        "share_of_gemm_limit": round(rate * flops / limit, 3),
        "atoms_per_molecule": round(sum(map(encoder.tokens, samples)) / len(samples), 1),
    }


def forward_flops(model: PretrainingModel, samples: list[Sample]) -> float:
    """Of the matrix products of a forward pass. Molecules go one by one: alone, none is padded."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear)  # noqa: S101 - narrows the type
        total += 2 * inputs[0].numel() * layer.out_features

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Linear)]
    config = model.encoder.config
    with torch.no_grad():
        for sample in samples:
            model(model.encoder.collate([sample]))
            # Scores and the mixing of values, in each layer.
            total += 4 * len(sample["atoms"]) ** 2 * config.hidden_size * config.num_hidden_layers
    for hook in hooks:
        hook.remove()
    return total


if __name__ == "__main__":
    main()
