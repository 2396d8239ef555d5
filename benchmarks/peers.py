"""Peers, in environments of their own: what they need never meets what this project pins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.ledger import ROOT
from domains.contract import GroundworkError

CACHE = Path(os.environ.get("GROUNDWORK_BENCHMARKS", ROOT / "var" / "benchmarks"))
"""What benchmarks make once and keep; never committed."""

CHEMPROP = "chemprop==2.3.1"
TERRATORCH = "terratorch==1.2.13"
TILING_NEEDS = ("numpy", "rasterio", "tqdm")
"""Of TerraTorch only the tiled inference is measured, and that needs no more beside torch."""

TORCHGEO = "torchgeo==0.8.1"
TORCHVISION = "torchvision==0.28.0"
"""The one that belongs to our torch. Its wheels are linked with CUDA; see ``torchgeo_sampler.py``."""
TORCHGEO_NEEDS = (
    "einops", "geopandas", "matplotlib", "numpy", "pandas", "pillow", "pyproj", "rasterio", "requests",
    "shapely", "typing-extensions",
)  # fmt: skip
"""What its datasets and samplers import; its trainers and models would need some gigabytes more."""

SAME_AS_OURS = ("torch",)
"""Packages that a peer gets in our version: pip, left to choose, may fetch gigabytes for a GPU that is not
there. RDKit is the peer's own, for Chemprop says which it takes."""


def environment(package: str, needs: Sequence[str] | None = None) -> Path:
    """The ``bin`` folder of a virtual environment that holds ``package``, made where it is not there yet.

    ``package`` may be several, with blanks between; where ``needs`` are given, they are installed in place of
    what it asks for. Raises GroundworkError where it cannot be installed.
    """
    folder = CACHE / "environments" / package.partition(" ")[0]
    installed = folder / ".installed"
    if not installed.exists():
        pins = [f"{name}=={version(name).partition('+')[0]}" for name in SAME_AS_OURS]
        print(f"installing {package} into {folder}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], "cannot make an environment")
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        if needs is None:
            _run([*pip, *package.split(), *pins], f"cannot install {package}")
        else:
            _run([*pip, *needs, *pins], f"cannot install what {package} needs")
            _run([*pip, "--no-deps", *package.split()], f"cannot install {package}")
        installed.touch()  # last, so that an installation that was interrupted is begun again
    return folder / "bin"


def torchgeo_python() -> Path:
    """The interpreter that can import TorchGeo's datasets and samplers: about 1.5 GB, in a minute."""
    return environment(f"{TORCHGEO} {TORCHVISION}", TORCHGEO_NEEDS) / "python"


def chemprop_python() -> Path:
    """The interpreter that can import Chemprop."""
    return environment(CHEMPROP) / "python"


def terratorch_python() -> Path:
    """The interpreter that can load TerraTorch's tiled inference, see ``terratorch_tiles``."""
    return environment(TERRATORCH, TILING_NEEDS) / "python"


def chemprop_predictions(rows: pd.DataFrame, targets: Sequence[str], kind: str, seed: int) -> pd.DataFrame:
    """Train Chemprop with its defaults and answer the test rows.

    ``rows`` has ``smiles``, ``side`` (train, val, test) and the targets, NaN where not measured; ``kind`` is
    ``regression`` or ``classification``. Returns ``targets`` as predicted, in the order of the test rows.
    Raises GroundworkError where it fails.
    """
    program = environment(CHEMPROP) / "chemprop"
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows.to_csv(folder / "rows.csv", index=False)
        command = [str(program), "train", "--data-path", "rows.csv", "--output-dir", "trained"]
        command += ["--task-type", kind, "--smiles-columns", "smiles", "--target-columns", *targets]
        command += ["--splits-column", "side", "--pytorch-seed", str(seed)]
        _run(command, "chemprop failed", folder)
        answered = pd.read_csv(folder / "trained" / "model_0" / "test_predictions.csv")
    asked = rows.loc[rows["side"] == "test", "smiles"].tolist()
    if answered["smiles"].tolist() != asked:
        raise GroundworkError("chemprop answers other rows than it was asked: use the version that is pinned")
    return answered[list(targets)]


def _run(command: Sequence[str], fault: str, folder: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ended.returncode:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()] or ["no output"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])  # pip's own words
        raise GroundworkError(f"{fault}: {said[:300]}")
