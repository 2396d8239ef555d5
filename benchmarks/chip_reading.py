"""From GeoTIFFs to chips before the encoder, beside TorchGeo and a bare read.

``python -m benchmarks.chip_reading``. Generated scenes, deflated in tiles, are materialised: opened, looked
at, cut into chips, checked and stored, in one process, which reads in one thread and writes in another.
Beside that stands a read of the same files by rasterio alone, block by block into an array that is there
already. GDAL's cache of blocks is held to a part of the files, as it is for a corpus; each turn finds all
files unopened.

Then batches of chips in random order are taken from the store and collated for the encoder. Beside that
stands TorchGeo's RandomGeoSampler over a RasterDataset of the same files, in a DataLoader of such batches, in
a process of its own; its cache of blocks is GDAL's default, a twentieth of the memory. It is installed
without its trainers, and torchvision without its operators, which are linked with CUDA: reading rasters uses
neither.

All are timed by the wall, in turn; ``_busy`` is the same of the processor's seconds, of which what other
processes take is no part.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from benchmarks.ledger import arguments, measured, processor
from benchmarks.peers import TORCHGEO, torchgeo_python
from domains.contract import EncodingSpec, digest_of
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.store import Store, build
from models.encoder import create_encoder

BANDS = ("B2", "B3", "B4", "B8", "B11", "B12")
NODATA = 0
PATCH = 8
CACHE_ROWS = 2.5
"""Rows of blocks that GDAL may keep while scenes are materialised."""
CODE = (
    "domains/arrays.py",
    "domains/shards.py",
    "domains/store.py",
    "domains/geospatial",
    "models/encoder.py",
    "models/rasters",
    "benchmarks/chip_reading.py",
    "benchmarks/torchgeo_sampler.py",
)
PEER = Path(__file__).with_name("torchgeo_sampler.py")


class Took(NamedTuple):
    """Seconds by the wall, and of the processor."""

    wall: float
    busy: float


Epoch = Callable[[int], Took]
"""Seconds of the chips of an epoch, by its seed."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--side", type=int, default=2048, help="pixels on a side of a scene")
    parser.add_argument("--tile", type=int, default=512, help="pixels on a side of a block of a file")
    parser.add_argument("--chip", type=int, default=64, help="pixels on a side of a chip")
    parser.add_argument("--batch", type=int, default=64, help="chips")
    parser.add_argument("--chips", type=int, default=1024, help="chips of an epoch")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    told = {
        name: getattr(options, name) for name in ("scenes", "side", "tile", "chip", "batch", "chips", "turns")
    }
    line = measured(
        "chip_reading",
        code=CODE,
        data=digest_of([options.scenes, options.side, options.tile, options.seed]),
        seed=options.seed,
        device=processor(),
        options={
            **told,
            "rasterio": rasterio.__version__,
            "gdal": rasterio.__gdal_version__,
            "peer": TORCHGEO,
        },
        again=options.again,
        measure=lambda: measure(**told, seed=options.seed),
    )
    print(json.dumps(line))


def measure(
    scenes: int, side: int, tile: int, chip: int, batch: int, chips: int, turns: int, seed: int
) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_scenes(folder / "scenes", scenes, side, tile, seed)
        store, figures = time_materialising(files, folder, chip, turns)
        ours = batches_of(store, GEOSPATIAL.open(files[0].parent, encoding(chip)).encoding, batch, chips)
        with torchgeo_sampler(files, chip, batch, chips) as peer:
            return {**figures, **time_loading(ours, peer, chips, turns)}


# ----------------------------------------------------------------------------------------------- scenes


def write_scenes(folder: Path, count: int, side: int, tile: int, seed: int) -> list[Path]:
    """Scenes far from each other, uint16, whose corner no swath has reached."""
    folder.mkdir()
    files = [folder / f"scene{number}.tif" for number in range(count)]
    for number, file in enumerate(files):
        pixels = natural_image(np.random.default_rng([seed, number]), side)
        pixels[:, : side // 10, : side // 8] = NODATA
        profile = {"count": len(BANDS), "height": side, "width": side, "dtype": "uint16", "nodata": NODATA}
        profile |= {"tiled": True, "blockxsize": tile, "blockysize": tile, "compress": "deflate"}
        place = from_origin(300_000 + 200_000 * number, 5_000_000, 10, 10)
        with rasterio.open(file, "w", "GTiff", crs="EPSG:32632", transform=place, **profile) as opened:
            opened.write(pixels)
            opened.descriptions = BANDS
    return files


def natural_image(random: np.random.Generator, side: int) -> np.ndarray:
    """Reflectance × 10000, uint16 [bands, side, side], as compressible as a photograph.

    The power of its spectrum falls with the square of the frequency, as in natural images (Field 1987, JOSA A
    4, 2379); bands share most of it, and each has the noise of its detector.
    """
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf

    def field() -> np.ndarray:
        noise = np.fft.rfft2(random.standard_normal((side, side)))
        found = np.fft.irfft2(noise / frequency, (side, side))
        return found / found.std()

    shared = field()
    bands = []
    for place in range(len(BANDS)):
        values = 1500 + 300 * place + 400 * (0.9 * shared + 0.4 * field())
        bands.append(np.clip(values + 15 * random.standard_normal((side, side)), 1, 10_000).astype(np.uint16))
    return np.stack(bands)


# ---------------------------------------------------------------------------------------- materialising


def time_materialising(
    files: Sequence[Path], folder: Path, chip: int, turns: int
) -> tuple[Store, dict[str, Any]]:
    """The store of the last turn, and its seconds beside those of a bare read."""
    with rasterio.open(files[0]) as first:
        bytes_read = (
            len(files) * first.count * first.height * first.width * np.dtype(first.dtypes[0]).itemsize
        )
        cache = int(CACHE_ROWS * first.block_shapes[0][0] * first.width * first.count * 2)
    bare, ours = [], []
    with rasterio.Env(GDAL_CACHEMAX=cache):
        for turn in range(turns + 1):
            bare.append(time_bare_read(_anew(files, folder / f"bare{turn}")))
            store, took = time_build(_anew(files, folder / f"ours{turn}"), folder / f"store{turn}", chip)
            ours.append(took)
    bare, ours = bare[1:], ours[1:]  # what is filled once in a process is not filled in each turn
    stored = sum(file.stat().st_size for file in store.folder.rglob("*.npy"))
    megabytes = bytes_read * turns / 1e6
    return store, {
        **{f"share_of_bare_read{name}": ratio for name, ratio in over(bare, ours).items()},
        "bare_mb_per_s": round(megabytes / sum(took.wall for took in bare), 1),
        "materialised_mb_per_s": round(megabytes / sum(took.wall for took in ours), 1),
        "stored_over_read": round(stored / bytes_read, 3),
        "materialised_chips": len(store),
    }


def time_bare_read(folder: Path) -> Took:
    """Every block of every file, read into the same array."""
    started, busy = perf_counter(), process_time()
    for file in sorted(folder.iterdir()):
        with rasterio.open(file) as opened:
            rows, columns = opened.block_shapes[0]
            block = np.empty((opened.count, rows, columns), opened.dtypes[0])
            for _, window in opened.block_windows(1):
                opened.read(window=window, out=block[:, : window.height, : window.width])
    return Took(perf_counter() - started, process_time() - busy)


def time_build(folder: Path, root: Path, chip: int) -> tuple[Store, Took]:
    """What a flow does with a folder of scenes, to the finished store."""
    started, busy = perf_counter(), process_time()
    source = GEOSPATIAL.open(folder, encoding(chip))
    store = build("geospatial", source, source.encoding, root)
    return store, Took(perf_counter() - started, process_time() - busy)


def encoding(chip: int) -> RasterEncoding:
    return RasterEncoding(chip=chip, patch=PATCH)


def _anew(files: Sequence[Path], folder: Path) -> Path:
    """The files under other names, by which nobody has opened them."""
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
    return folder


# ---------------------------------------------------------------------------------------------- loading


def time_loading(ours: Epoch, peer: Epoch, chips: int, turns: int) -> dict[str, Any]:
    """Chips per second of both, whose epochs take turns."""
    seconds: dict[str, list[Took]] = {"ours": [], "peer": []}
    for turn in range(turns):
        seconds["peer"].append(peer(turn))
        seconds["ours"].append(ours(turn))
    rates = {name: chips * turns / sum(took.wall for took in them) for name, them in seconds.items()}
    return {
        **{
            f"ours_over_torchgeo{name}": ratio
            for name, ratio in over(seconds["peer"], seconds["ours"]).items()
        },
        "chips_per_s": round(rates["ours"]),
        "torchgeo_chips_per_s": round(rates["peer"]),
    }


def batches_of(store: Store, spec: EncodingSpec, batch: int, chips: int) -> Epoch:
    """Epochs of chips drawn from the store, in batches for the encoder."""
    encoder = create_encoder("geospatial", "tiny", spec)
    encoder.fit_input(spec, store.subset(np.arange(min(batch, len(store)))))

    def epoch(seed: int) -> Took:
        order = np.random.default_rng(seed).integers(0, len(store), chips)
        started, busy = perf_counter(), process_time()
        for start in range(0, chips, batch):
            encoder.collate([store[place] for place in order[start : start + batch]])
        return Took(perf_counter() - started, process_time() - busy)

    return epoch


@contextmanager
def torchgeo_sampler(files: Sequence[Path], chip: int, batch: int, chips: int) -> Iterator[Epoch]:
    """Epochs of TorchGeo, by a process in an environment of its own."""
    asked = {"paths": [str(file) for file in files], "chip": chip, "batch": batch, "chips": chips}
    command = [str(torchgeo_python()), "-W", "ignore", str(PEER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        stdin, stdout = peer.stdin, peer.stdout
        if stdin is None or stdout is None:
            raise AssertionError

        def epoch(seed: int) -> Took:
            stdin.write(json.dumps({**asked, "seed": seed}) + "\n")
            stdin.flush()
            wall, busy, came = json.loads(stdout.readline())
            if came != chips:
                raise AssertionError(f"{came} chips of {chips}")
            return Took(wall, busy)

        yield epoch
        stdin.close()


def over(ones: Sequence[Took], others: Sequence[Took]) -> dict[str, float]:
    """Sums over sums: by the wall, and of the processor as ``_busy``."""
    wall = sum(took.wall for took in ones) / sum(took.wall for took in others)
    busy = sum(took.busy for took in ones) / sum(took.busy for took in others)
    return {"": round(wall, 3), "_busy": round(busy, 3)}


if __name__ == "__main__":
    main()
