"""A Gaussian process beside a tuned network: what similar training records say.

Exact regression with a sum of kernels, one for each way in which records are alike: the embedding of a frozen
foundation and computed numbers (squared exponential and linear), computed bits (Tanimoto). Its parameters
maximise the marginal likelihood. Classes are regressed as zeros and ones, and a logistic curve through the
leave-one-out answers makes probabilities of them.

Sources: Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006 (2.2, 5.4, 6.5; leave-one-out:
5.4.2); Ralaivola et al., Neural Networks 2005, 18, 1093 (the Tanimoto kernel); Griffiths et al., GAUCHE,
NeurIPS 2023 (its use for molecules); Platt 1999 (the logistic curve).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from domains.contract import Sample, Target, TargetSpec
from models.encoder import Batch, Encoder
from models.pretraining import OUTLIER, unpack_bits

MOST_ROWS = 4000
"""Training rows that are kept: solving costs their cube, and answering each of them."""
ROWS_TO_FIT_BY = 512
MANY_TARGETS = 16
"""Of more targets fewer rows are kept, at the same cost, and those with the fewest labels share kernels."""
STEPS, STEP = 80, 0.1
FIRST_NOISE = -1.5
"""Logarithm of the share of the variance that is taken for noise to begin with."""
WIDTH = 3.0
"""Of the normal prior on the logarithms of the parameters: it matters only where there are few rows."""
JITTER = 1e-6
BATCH = 128
EMBEDDING = "embedding"

Collate = Callable[[Sequence[Sample]], Batch]


@dataclass(frozen=True)
class Part:
    """One way in which records are compared."""

    name: str
    bits: int = 0
    """How many bits there are; 0 where it is numbers."""

    @property
    def parameters(self) -> int:
        """Of its kernels: the share of each, and how fast the likeness of numbers falls."""
        return 1 if self.bits else 3

    def kernel(self, rows: torch.Tensor, kept: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Rows [n, k] and [m, k] -> the kernel float64 [n, m] as a function of its parameters' logarithms.

        Bits come as float32, whose sums are exact; numbers as float64.
        """
        shared = (rows @ kept.T).double()
        squares = (rows**2).sum(-1, keepdim=True).double()
        others = (kept**2).sum(-1).double()
        if self.bits:
            # Tanimoto; two records without any bit are alike.
            either = squares + others - shared
            alike = torch.where(either > 0, shared / either.clamp(min=1), 1.0)
            return lambda logs: logs[0].exp() * alike
        products = shared / rows.shape[-1]
        apart = (squares + others - 2 * shared).clamp(min=0) / rows.shape[-1]
        return lambda logs: logs[0].exp() * torch.exp(-0.5 * logs[1].exp() * apart) + logs[2].exp() * products


class GaussianProcess(nn.Module):
    """Answers from training rows: ``forward`` gives values in the target's unit and probabilities.

    ``computed`` are the values that are compared, beside the embedding of ``encoder`` where there is one;
    ``state`` holds the training rows and what was fitted, as ``fit`` makes it and ``tensors`` gives it.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        computed: Sequence[TargetSpec],
        encoder: Encoder | None,
        state: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.computed = tuple(computed)
        self.encoder = encoder
        self.parts = [Part(EMBEDDING)] if encoder is not None else []
        self.parts += [Part(it.name, it.size if it.kind == "bits" else 0) for it in self.computed]
        for name, tensor in state.items():
            self.register_buffer(name, tensor)
        self._ready: dict[Part, torch.Tensor] = {}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All but the encoder: what a version keeps of it."""
        return {name: tensor.contiguous() for name, tensor in self.named_buffers() if "." not in name}

    @property
    def parameters_of_a_target(self) -> int:
        """Those of its kernels, and the noise."""
        return sum(part.parameters for part in self.parts) + 1

    def columns(self) -> list[slice]:
        """The columns of each target's outputs."""
        ends = np.cumsum([target.outputs for target in self.targets]).tolist()
        return [slice(end - target.outputs, end) for target, end in zip(self.targets, ends, strict=True)]

    def forward(self, batch: Batch) -> torch.Tensor:
        """A batch that holds the computed values -> float32 [B, outputs]."""
        with torch.no_grad():
            rows = {part: self._scaled(part, values) for part, values in self.compared(batch).items()}
            kernels = [part.kernel(rows[part], self._kept(part)) for part in self.parts]
            # Targets that share parameters share a kernel, which is the costly part.
            distinct, of_target = torch.unique(self.get_buffer("logs"), dim=0, return_inverse=True)
            of_output = of_target.repeat_interleave(self._outputs(of_target.device))
            solved = self.get_buffer("solved")
            raw = solved.new_empty(len(next(iter(rows.values()))), solved.shape[1])
            for place, logs in enumerate(distinct):
                columns = torch.nonzero(of_output == place)[:, 0]
                raw[:, columns] = sum_of_kernels(self.parts, kernels, logs) @ solved[:, columns]
            told = zip(self.targets, self.columns(), strict=True)
            return torch.cat([self._in_words(target, it, raw[:, it]) for target, it in told], -1).float()

    def beside(self, answered: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The network's answers [B, outputs] and these, each target's by its weight."""
        share = self.get_buffer("weight").to(answered.dtype)
        share = share.repeat_interleave(self._outputs(answered.device))
        return (1 - share) * answered + share * self(batch)

    def _outputs(self, device: torch.device) -> torch.Tensor:
        return torch.tensor([target.outputs for target in self.targets], device=device)

    def compared(self, batch: Batch) -> dict[Part, torch.Tensor]:
        """Embedding and computed values of a batch, as they come."""
        return {
            part: self.encoder(batch).pooled.float()
            if self.encoder is not None and part.name == EMBEDDING
            else batch[part.name]
            for part in self.parts
        }

    def _kept(self, part: Part) -> torch.Tensor:
        """The training rows [rows, k] as they are compared; made once, for every answer needs them."""
        rows = self.get_buffer(f"rows_{part.name}")
        ready = self._ready.get(part)
        if ready is None or ready.device != rows.device:
            self._ready[part] = ready = unpack_bits(rows, part.bits) if part.bits else rows.double()
        return ready

    def _scaled(self, part: Part, values: torch.Tensor) -> torch.Tensor:
        if part.bits:
            return unpack_bits(values, part.bits)
        mean, spread = self.get_buffer(f"mean_{part.name}"), self.get_buffer(f"scale_{part.name}")
        return ((values.double() - mean) / spread).nan_to_num(0.0).clamp(-OUTLIER, OUTLIER)

    def _in_words(self, target: Target, columns: slice, raw: torch.Tensor) -> torch.Tensor:
        values = raw * self.get_buffer("scale")[columns] + self.get_buffer("mean")[columns]
        if target.kind == "regression":
            return values
        slope, intercept = self.get_buffer("slope")[columns], self.get_buffer("intercept")[columns]
        chances = torch.sigmoid(slope * values + intercept)
        return chances if target.kind == "binary" else chances / chances.sum(-1, keepdim=True)

    # -------------------------------------------------------------------------------------- learning

    def keep(self, samples: Sequence[Sample], collate: Collate) -> None:
        """Take samples as the training rows; numbers are scaled by these, unless a scaling is known."""
        for part, values in self._gather(samples, collate).items():
            if not part.bits and not hasattr(self, f"mean_{part.name}"):
                for name, moment in zip(("mean", "scale"), _moments(values), strict=True):
                    self.register_buffer(f"{name}_{part.name}", moment)
            rows = values if part.bits else self._scaled(part, values).float()
            self.register_buffer(f"rows_{part.name}", rows)
        self._ready.clear()

    def _gather(self, samples: Sequence[Sample], collate: Collate) -> dict[Part, torch.Tensor]:
        device = "cpu" if self.encoder is None else self.encoder.device
        order = np.argsort([len(next(iter(sample.values()))) for sample in samples], kind="stable")
        found: dict[Part, list[torch.Tensor]] = {part: [] for part in self.parts}
        with torch.no_grad():
            for start in range(0, len(order), BATCH):
                batch = collate([samples[place] for place in order[start : start + BATCH]])
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                for part, values in self.compared(batch).items():
                    found[part].append(values.cpu())
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return {part: torch.cat(values)[back] for part, values in found.items()}

    def scaled(self, place: int, truth: torch.Tensor) -> torch.Tensor:
        """Truths of a target [m, outputs], standardised."""
        columns = self.columns()[place]
        return (truth - self.get_buffer("mean")[columns]) / self.get_buffer("scale")[columns]

    def learn_kernels(self, place: int, among: np.ndarray, truth: torch.Tensor) -> None:
        """Find a target's parameters: those of the largest posterior, by Adam from one start.

        ``truth`` float64 [m, outputs] is standardised; ``among`` are the m training rows it is of.
        """
        kernels = self._kernels(among)
        logs = torch.zeros(self.parameters_of_a_target, dtype=torch.float64)
        logs[-1] = FIRST_NOISE
        logs.requires_grad_(True)
        optimiser = torch.optim.Adam([logs], lr=STEP)
        unit = torch.eye(len(among), dtype=torch.float64)
        with torch.enable_grad():
            for _ in range(STEPS):
                optimiser.zero_grad()
                matrix = sum_of_kernels(self.parts, kernels, logs) + (logs[-1].exp() + JITTER) * unit
                factor = torch.linalg.cholesky(matrix)
                solved = torch.cholesky_solve(truth, factor)
                evidence = 0.5 * (truth * solved).sum() + truth.shape[1] * factor.diagonal().log().sum()
                loss = (evidence + 0.5 * (logs**2).sum() / WIDTH**2) / len(among)
                loss.backward()
                optimiser.step()
        self.get_buffer("logs")[place] = logs.detach()

    def solve(self, place: int, known: np.ndarray, truth: torch.Tensor) -> torch.Tensor:
        """Learn a target's answers from training rows; the Cholesky factor [m, m] of their covariance.

        ``truth`` float64 [m, outputs] is standardised; ``known`` are the m training rows it is of.
        """
        logs = self.get_buffer("logs")[place]
        matrix = sum_of_kernels(self.parts, self._kernels(known), logs)
        matrix.diagonal().add_(logs[-1].exp() + JITTER)
        factor = torch.linalg.cholesky(matrix)
        solved = torch.cholesky_solve(truth, factor)
        self.get_buffer("solved")[torch.from_numpy(known), self.columns()[place]] = solved
        return factor

    def left_out(
        self, place: int, known: np.ndarray, truth: torch.Tensor, factor: torch.Tensor
    ) -> torch.Tensor:
        """What each row is answered with from all the others, as truths are written; after ``solve``."""
        columns = self.columns()[place]
        solved = self.get_buffer("solved")[torch.from_numpy(known), columns]
        answers = truth - solved / torch.cholesky_inverse(factor).diagonal()[:, None]
        return answers * self.get_buffer("scale")[columns] + self.get_buffer("mean")[columns]

    def calibrate(self, place: int, answers: torch.Tensor, truth: torch.Tensor) -> None:
        """Draw the logistic curve of each column of a target through answers and truths [m, outputs]."""
        columns = self.columns()[place]
        for column in range(columns.start, columns.stop):
            here = column - columns.start
            is_class = truth[:, here].numpy() > 0.5
            if len(np.unique(is_class)) < 2:
                share = (is_class.sum() + 0.5) / (len(is_class) + 1)
                slope, intercept = 0.0, float(np.log(share / (1 - share)))
            else:
                curve = LogisticRegression(C=100.0).fit(answers[:, here : here + 1].numpy(), is_class)
                slope, intercept = float(curve.coef_[0, 0]), float(curve.intercept_[0])
            self.get_buffer("slope")[column] = slope
            self.get_buffer("intercept")[column] = intercept

    def _kernels(self, among: np.ndarray) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        chosen = torch.from_numpy(among)
        return [part.kernel(rows, rows) for part in self.parts for rows in [self._kept(part)[chosen]]]


def fit(
    targets: Sequence[Target],
    computed: Sequence[TargetSpec],
    encoder: Encoder | None,
    samples: Sequence[Sample],
    labels: np.ndarray,
    collate: Collate,
    seed: int,
) -> GaussianProcess:
    """Learn kernels and answers from training rows.

    ``labels`` float64 [n, targets], NaN where not measured; ``samples`` hold the ``computed`` values. Of more
    than ``MOST_ROWS`` rows as many are drawn by the seed. A target that is constant in these rows is answered
    with that constant.
    """
    chosen = _drawn(len(samples), _most_rows(targets), seed)
    process = GaussianProcess(targets, computed, encoder, _blank(targets, len(chosen))).eval()
    logs = torch.zeros(len(targets), process.parameters_of_a_target, dtype=torch.float64)
    process.register_buffer("logs", logs)
    process.keep([samples[place] for place in chosen], collate)
    _centre(process, labels)
    _learn_kernels(process, labels[chosen], seed)
    for place, target in enumerate(targets):
        truth, known = _truth(target, labels[chosen, place])
        answers = truth
        if len(known) > 1:
            scaled = process.scaled(place, truth)
            factor = process.solve(place, known, scaled)
            if target.kind != "regression":
                answers = process.left_out(place, known, scaled, factor)
        if target.kind != "regression":
            process.calibrate(place, answers, truth)
    return process


def extended(
    process: GaussianProcess, samples: Sequence[Sample], labels: np.ndarray, collate: Collate, seed: int
) -> GaussianProcess:
    """The same kernels, scaling and calibration with other training rows, as in ``fit``."""
    chosen = _drawn(len(samples), _most_rows(process.targets), seed)
    state = process.tensors
    state["solved"] = torch.zeros(len(chosen), state["solved"].shape[1], dtype=torch.float64)
    made = GaussianProcess(process.targets, process.computed, process.encoder, state).eval()
    made.keep([samples[place] for place in chosen], collate)
    for place, target in enumerate(made.targets):
        truth, known = _truth(target, labels[chosen, place])
        if len(known) > 1:
            made.solve(place, known, made.scaled(place, truth))
    return made


def _blank(targets: Sequence[Target], rows: int) -> dict[str, torch.Tensor]:
    """The state of a process that has learnt nothing."""
    outputs = sum(target.outputs for target in targets)
    blank = {
        "solved": torch.zeros(rows, outputs),
        "mean": torch.zeros(outputs),
        "scale": torch.ones(outputs),
        "slope": torch.ones(outputs),
        "intercept": torch.zeros(outputs),
        "weight": torch.full((len(targets),), 0.5),
    }
    return {name: tensor.double() for name, tensor in blank.items()}


def _learn_kernels(process: GaussianProcess, labels: np.ndarray, seed: int) -> None:
    """Learn the kernels of the targets with the most labels [rows, targets]; the others take their mean."""
    counts = np.isfinite(labels).sum(0)
    learning = [place for place in np.argsort(-counts, kind="stable")[:MANY_TARGETS] if counts[place] > 1]
    for place in learning:
        truth, known = _truth(process.targets[place], labels[:, place])
        few = _drawn(len(known), ROWS_TO_FIT_BY, seed)
        process.learn_kernels(place, known[few], process.scaled(place, truth[torch.from_numpy(few)]))
    others = np.setdiff1d(np.arange(len(process.targets)), learning)
    if len(learning) and len(others):
        logs = process.get_buffer("logs")
        logs[others] = logs[learning].mean(0)


def _most_rows(targets: Sequence[Target]) -> int:
    return int(MOST_ROWS * min(1.0, MANY_TARGETS / len(targets)) ** (1 / 3))


def _centre(process: GaussianProcess, labels: np.ndarray) -> None:
    """Learn mean and spread of each output from all labels, whichever rows are kept."""
    for place, target in enumerate(process.targets):
        truth, known = _truth(target, labels[:, place])
        if len(known):
            spread = truth.std(0, unbiased=False)
            process.get_buffer("mean")[process.columns()[place]] = truth.mean(0)
            process.get_buffer("scale")[process.columns()[place]] = torch.where(spread > 1e-9, spread, 1.0)


def sum_of_kernels(
    parts: Sequence[Part], kernels: Sequence[Callable[[torch.Tensor], torch.Tensor]], logs: torch.Tensor
) -> torch.Tensor:
    """The kernel of records that are compared in all these ways, float64 [n, m]."""
    total, start = torch.zeros((), dtype=torch.float64, device=logs.device), 0
    for part, kernel in zip(parts, kernels, strict=True):
        total = total + kernel(logs[start : start + part.parameters])
        start += part.parameters
    return total


def _moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a value is no surprise
        numbers = values.double().numpy()
        mean, spread = np.nan_to_num(np.nanmean(numbers, 0)), np.nan_to_num(np.nanstd(numbers, 0))
    # What never varies says nothing, whatever it is later.
    spread = np.where(spread > 1e-6, spread, np.inf)
    return torch.from_numpy(mean).float(), torch.from_numpy(spread).float()


def _truth(target: Target, labels: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """What is regressed of the measured rows, float64 [m, outputs], and which rows these are."""
    known = np.flatnonzero(np.isfinite(labels))
    values = torch.from_numpy(labels[known].astype(np.float64))
    if target.kind == "multiclass":
        return nn.functional.one_hot(values.long(), target.outputs).double(), known
    return values[:, None], known


def _drawn(count: int, most: int, seed: int) -> np.ndarray:
    """Up to ``most`` of ``count`` places, in order."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])
