"""A graph transformer over molecules: local message passing beside global attention.

Each block adds a message-passing step over the bonds (GINE, Hu et al. 2020) and an attention step
over all atom pairs (GraphGPS, Rampášek et al. 2022). Attention is biased by the shortest-path
distance and the bond (Graphormer, Ying et al. 2021) and by the random-walk probabilities of a pair
(GRIT, Ma et al. 2023); an atom's own return probabilities tell it its place in the graph.

Atoms are kept packed, [T, D] for the T atoms of a batch, so that every matrix product works on real
atoms alone; only attention scatters them into a padded [B, N] layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel
from transformers.modeling_layers import GradientCheckpointingLayer

from domains.contract import Sample, TargetSpec
from models.encoder import Batch, Embeddings, Encoder, EncoderConfig, Masked, join_ragged

FORBIDDEN = -1e9
"""Added to the score of a pair without a second atom: no softmax leaves anything of it."""


class GraphTransformerConfig(EncoderConfig):
    """Sizes of a graph transformer, and the alphabets of the codes that it reads."""

    model_type = "groundwork_graph_transformer"

    hidden_size: int = 128
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 256
    walk_length: int = 8
    """Longest random walk and largest shortest-path distance told apart, in bonds."""
    initializer_range: float = 0.02
    atom_fields: list[list[str | int]] | None = None
    """(name, alphabet size) of each column of ``atoms``."""
    bond_fields: list[list[str | int]] | None = None
    """(name, alphabet size) of each column of ``bond_codes``."""

    def __post_init__(self, **kwargs: object) -> None:
        self.atom_fields = self.atom_fields or [
            ["element", 119],
            ["degree", 13],
            ["hydrogens", 9],
            ["charge", 17],
            ["aromatic", 2],
            ["ring", 2],
            ["chirality", 4],
        ]
        self.bond_fields = self.bond_fields or [["bond", 5], ["stereo", 3]]
        super().__post_init__(**kwargs)


class CodeEmbedding(nn.Module):
    """Sum of one embedding per code field; code ``size`` of each field means hidden."""

    starts: torch.Tensor
    hidden: torch.Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        # One table for all fields: a single gather, and a field's rows start at its offset.
        starts = np.concatenate([[0], np.cumsum([size + 1 for size in sizes])[:-1]])
        self.table = nn.EmbeddingBag(int(sum(size + 1 for size in sizes)), width, mode="sum")
        self.register_buffer("starts", torch.as_tensor(starts, dtype=torch.long))
        self.register_buffer("hidden", torch.as_tensor(sizes, dtype=torch.long))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes int64 [n, fields] -> [n, width]."""
        return self.table(codes + self.starts)


class GraphLayout:
    """Where each atom of a packed batch lies in the padded [B, N] layout."""

    def __init__(self, size: torch.Tensor) -> None:
        self.graphs = len(size)
        self.width = int(size.max())
        self.graph = torch.repeat_interleave(torch.arange(self.graphs, device=size.device), size)
        first = torch.cumsum(size, 0) - size
        self.slot = (
            self.graph * self.width + torch.arange(len(self.graph), device=size.device) - first[self.graph]
        )
        self.mask = torch.arange(self.width, device=size.device)[None, :] < size[:, None]

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """[T, D] -> [B, N, D], zero where there is no atom."""
        padded = packed.new_zeros(self.graphs * self.width, packed.shape[-1])
        return padded.index_copy_(0, self.slot, packed).view(self.graphs, self.width, -1)

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [T, D]"""
        return padded.reshape(self.graphs * self.width, -1).index_select(0, self.slot)

    def pad_heads(self, packed: torch.Tensor) -> torch.Tensor:
        """[T, k, H, d] -> [k, H * B, N, d], zero where there is no atom: as batched products take it."""
        _, parts, heads, width = packed.shape
        padded = packed.new_zeros(parts, heads, self.graphs * self.width, width)
        padded = padded.index_copy(2, self.slot, packed.permute(1, 2, 0, 3))
        return padded.view(parts, heads * self.graphs, self.width, width)

    def pack_heads(self, padded: torch.Tensor) -> torch.Tensor:
        """[H * B, N, d] -> [T, H * d]"""
        width = padded.shape[-1]
        packed = padded.view(-1, self.graphs * self.width, width).index_select(1, self.slot)
        return packed.transpose(0, 1).reshape(len(self.slot), -1)

    def pairs(self, edges: torch.Tensor) -> torch.Tensor:
        """Edges [2, E] of packed atoms -> their index in a flattened [B, N, N]."""
        source, target = self.slot[edges[0]], self.slot[edges[1]]
        return source * self.width + target % self.width


class GraphTransformerBlock(GradientCheckpointingLayer):
    """x + messages + attention, then x + feed-forward; normalised before each (pre-norm)."""

    def __init__(self, config: GraphTransformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.mixing_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.message_input = nn.Linear(width, width)
        self.message_output = nn.Linear(width, width)
        self.feed_forward_input = nn.Linear(width, config.intermediate_size)
        self.feed_forward_output = nn.Linear(config.intermediate_size, width)

    def forward(
        self,
        atoms: torch.Tensor,
        layout: GraphLayout,
        edges: torch.Tensor,
        edge_embedding: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        mixed = self.mixing_norm(atoms)
        atoms = atoms + self.messages(mixed, edges, edge_embedding) + self.attention(mixed, layout, bias)
        hidden = F.gelu(self.feed_forward_input(self.feed_forward_norm(atoms)))
        return atoms + self.feed_forward_output(hidden)

    def messages(
        self, atoms: torch.Tensor, edges: torch.Tensor, edge_embedding: torch.Tensor
    ) -> torch.Tensor:
        """Sum over the neighbours of a non-linear function of neighbour and bond."""
        message = F.gelu(self.message_input(atoms).index_select(0, edges[0]) + edge_embedding)
        return self.message_output(torch.zeros_like(atoms).index_add(0, edges[1], message.to(atoms.dtype)))

    def attention(self, atoms: torch.Tensor, layout: GraphLayout, bias: torch.Tensor) -> torch.Tensor:
        """Multi-head attention over all atoms of a molecule, biased per pair and head."""
        heads = self.query_key_value(atoms).view(len(atoms), 3, self.heads, -1)
        query, key, value = layout.pad_heads(heads)
        # Not torch's own attention, which takes a slower way on the CPU where the bias learns.
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(bias.to(query.dtype), query, key.transpose(1, 2), alpha=scale)
        return self.attention_output(layout.pack_heads(torch.softmax(scores, -1) @ value))


class PairBias(nn.Module):
    """Attention bias of every atom pair from the graph alone: distance, random walks, bond."""

    def __init__(self, config: GraphTransformerConfig, bond_sizes: Sequence[int]) -> None:
        super().__init__()
        self.walk_length = config.walk_length
        heads = config.num_attention_heads
        # Distances 0 .. walk_length, and one more for anything farther or in another fragment.
        self.distance = nn.Embedding(config.walk_length + 2, heads)
        self.walks = nn.Linear(config.walk_length, heads, bias=False)
        self.bond = CodeEmbedding(bond_sizes, heads)

    def forward(
        self, layout: GraphLayout, edges: torch.Tensor, bond_codes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the bias [H * B, N, N] and each atom's return probabilities [T, K]."""
        pair = layout.pairs(edges)
        with torch.no_grad():
            features = self.pair_features(layout, pair)
        walks, distance = self.walks.weight, self.distance.weight.t()
        weight = torch.cat([walks, distance, torch.full_like(walks[:, :1], FORBIDDEN)], 1)
        # Heads come first and pairs last: one product makes all biases, as attention takes them.
        bias = weight @ features.flatten(1)
        bias = bias.index_add(1, pair, self.bond(bond_codes).t().to(bias.dtype))
        diagonal = torch.diagonal(features[: self.walk_length], dim1=2, dim2=3)
        return bias.view(-1, layout.width, layout.width), layout.pack(diagonal.permute(1, 2, 0))

    def pair_features(self, layout: GraphLayout, pair: torch.Tensor) -> torch.Tensor:
        """What is known of each pair, [K + (K + 2) + 1, B, N, N].

        The probabilities of walks of 1..K steps, the distance one-hot (0..K, and one more for anything
        farther), and whether the second atom is none.
        """
        steps, width = self.walk_length, layout.width
        shape = (2 * steps + 3, layout.graphs, width, width)
        features = torch.zeros(shape, dtype=self.walks.weight.dtype, device=pair.device)
        adjacency = torch.zeros_like(features[0]).flatten().index_fill(0, pair, 1.0).view(shape[1:])
        step = adjacency / adjacency.sum(-1, keepdim=True).clamp(min=1)
        near = torch.eye(width, dtype=torch.bool, device=pair.device).repeat(layout.graphs, 1, 1)
        features[steps] = near
        walk = step
        for length in range(1, steps + 1):
            features[length - 1] = walk
            reached = (walk > 0) & ~near
            features[steps + length] = reached
            near |= reached
            walk = torch.bmm(walk, step)
        features[2 * steps + 1] = ~near
        features[2 * steps + 2] = ~layout.mask[:, None, :]
        return features


class GraphTransformer(Encoder):
    """Molecular encoder: samples of ``atoms``, ``bonds``, ``bond_codes`` -> embeddings."""

    config_class = GraphTransformerConfig
    config: GraphTransformerConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    presets: ClassVar = {
        "tiny": {
            "hidden_size": 128,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 256,
        },
        "small": {
            "hidden_size": 256,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "intermediate_size": 512,
        },
        "base": {
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "intermediate_size": 1024,
        },
    }
    top_modules: ClassVar = ["norm", "read_out"]
    lora_modules: ClassVar = [
        "query_key_value",
        "attention_output",
        "message_input",
        "message_output",
        "feed_forward_input",
        "feed_forward_output",
    ]

    def __init__(self, config: GraphTransformerConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.atom_names = [str(name) for name, _ in config.atom_fields or ()]
        bond_sizes = [int(size) for _, size in config.bond_fields or ()]
        self.atom_embedding = CodeEmbedding([int(size) for _, size in config.atom_fields or ()], width)
        self.bond_embedding = CodeEmbedding(bond_sizes, width)
        self.walk_embedding = nn.Linear(config.walk_length, width)
        self.pair_bias = PairBias(config, bond_sizes)
        self.blocks = nn.ModuleList(GraphTransformerBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width)
        # The mean answers for intensive properties, the sum for extensive ones.
        self.read_out = nn.Linear(2 * width, width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.config.hidden_size**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)

    @staticmethod
    def tokens(sample: Sample) -> int:
        return len(sample["atoms"])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples -> ``size`` [B], ``atoms`` [T, fields], ``edges`` [2, E], ``bond_codes`` [E, fields].

        Every bond becomes two directed edges. Arrays beyond the encoder's own are stacked as they
        are, [B, …]: values of sample-level pretraining targets.
        """
        size = np.array([len(sample["atoms"]) for sample in samples])
        bonds = np.array([len(sample["bonds"]) for sample in samples])
        shift = np.repeat(np.cumsum(size) - size, bonds)
        ends = np.concatenate([sample["bonds"] for sample in samples]).astype(np.int64) + shift[:, None]
        codes = join_ragged([sample["bond_codes"] for sample in samples], torch.long)
        batch = {
            "size": torch.from_numpy(size),
            "atoms": join_ragged([sample["atoms"] for sample in samples], torch.long),
            "edges": torch.from_numpy(np.concatenate([ends, ends[:, ::-1]]).T.copy()),
            "bond_codes": torch.cat([codes, codes]),
        }
        for name in samples[0].keys() - {"atoms", "bonds", "bond_codes"}:
            batch[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]))
        return batch

    def forward(self, batch: Batch) -> Embeddings:
        layout = GraphLayout(batch["size"])
        atoms, pooled = self.embed(batch["atoms"], batch["edges"], batch["bond_codes"], layout)
        return Embeddings(layout.pad(atoms), pooled, layout.mask)

    def embed(
        self, atom_codes: torch.Tensor, edges: torch.Tensor, bond_codes: torch.Tensor, layout: GraphLayout
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of the packed atoms [T, D] and of the molecules [B, D]."""
        bias, returns = self.pair_bias(layout, edges, bond_codes)
        atoms = self.atom_embedding(atom_codes) + self.walk_embedding(returns)
        edge_embedding = self.bond_embedding(bond_codes)
        for block in self.blocks:
            atoms = block(atoms, layout, edges, edge_embedding, bias)
        atoms = self.norm(atoms)
        total = atoms.new_zeros(layout.graphs, atoms.shape[-1]).index_add(0, layout.graph, atoms)
        count = layout.mask.sum(1, keepdim=True)
        # 16 brings the sum of a usual molecule to the scale of the mean.
        pooled = self.read_out(torch.cat([total / count, total / 16], -1))
        return atoms, pooled

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: torch.Generator | None = None,
        *,
        views: bool = False,
    ) -> Masked:
        layout = GraphLayout(batch["size"])
        device = batch["size"].device
        half = len(batch["edges"][0]) // 2
        # Every other molecule stays whole: sample-level targets are learnt from whole molecules,
        # which is what the encoder will see when it is used.
        masked = torch.rand(layout.graphs, generator=generator, device=device) < 0.5
        hide_atom = torch.rand(len(layout.graph), generator=generator, device=device) < ratio
        hide_bond = torch.rand(half, generator=generator, device=device) < ratio
        hide_atom &= masked[layout.graph]
        hide_bond &= masked[layout.graph[batch["edges"][0, :half]]]
        hide_edge = torch.cat([hide_bond, hide_bond])
        atoms, pooled = self.embed(
            torch.where(hide_atom[:, None], self.atom_embedding.hidden, batch["atoms"]),
            batch["edges"],
            torch.where(hide_edge[:, None], self.bond_embedding.hidden, batch["bond_codes"]),
            layout,
        )
        begin, end = batch["edges"][:, :half][:, hide_bond]
        features, truth = {}, {}
        for target in targets:
            if target.level == "token":
                features[target.name] = atoms[hide_atom]
                truth[target.name] = batch["atoms"][hide_atom, self.atom_names.index(target.name)]
            elif target.level == "relation":
                features[target.name] = atoms[begin] + atoms[end]
                truth[target.name] = batch["bond_codes"][:half][hide_bond, 0]
            else:
                features[target.name] = pooled[~masked]
                truth[target.name] = batch[target.name][~masked]
        return Masked(features, truth)


AutoConfig.register(GraphTransformerConfig.model_type, GraphTransformerConfig)
AutoModel.register(GraphTransformerConfig, GraphTransformer)
