"""Chemprop's own way from SMILES to graphs, timed. Run by the peers' interpreter: it imports nothing of ours.

Reads a JSON list of SMILES per line, and answers each with the seconds of the processor that it took.
"""

from __future__ import annotations

import json
import sys
from time import process_time

from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.utils import make_mol


def main() -> None:
    featurise = SimpleMoleculeMolGraphFeaturizer()
    for line in sys.stdin:
        smiles = json.loads(line)
        started = process_time()
        for value in smiles:
            featurise(make_mol(value))
        print(json.dumps(process_time() - started), flush=True)


if __name__ == "__main__":
    main()
