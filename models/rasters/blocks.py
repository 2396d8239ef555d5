"""Transformer blocks over the patches of an image, turned by where each patch lies."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

UNSEEN = -3e4
"""Added to the attention scores of a token without data: large, and finite in every precision, so that a
chip without any data gives no NaN."""

LONGEST = 100.0
"""Longest wave of the rotations, over 2π, in patches; chips are 4 to 64 of them wide."""


class VisionBlock(GradientCheckpointingLayer):
    """x + attention, then x + feed-forward; normalised before each (pre-norm)."""

    def __init__(self, width: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward_input = nn.Linear(width, intermediate)
        self.feed_forward_output = nn.Linear(intermediate, width)

    def forward(
        self, tokens: torch.Tensor, rotation: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens [B, N, D], their rotation [1 or B, N, 1, d / 2] and the bias of keys.

        The bias is [B, 1, 1, N], None where all keys count.
        """
        batch, count, width = tokens.shape
        mixed = self.query_key_value(self.attention_norm(tokens)).view(batch, count, 3, self.heads, -1)
        query, key, value = mixed.unbind(2)  # slices would be zeroed and added on the way back
        parts = (turn(query, rotation), turn(key, rotation), value)
        query, key, value = (part.transpose(1, 2) for part in parts)
        attended = attend(query, key, value, bias)
        tokens = tokens + self.attention_output(attended.transpose(1, 2).reshape(batch, count, width))
        hidden = F.gelu(self.feed_forward_input(self.feed_forward_norm(tokens)))
        return tokens + self.feed_forward_output(hidden)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Attention of ``query``, ``key``, ``value`` [B, heads, N, d] with a bias of keys, if there is one.

    On a CPU always in single precision: there, torch's way back through bfloat16 takes ten times as long.
    """
    precision = query.dtype
    if query.device.type != "cpu" or precision == torch.float32:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=None if bias is None else bias.to(precision)
        )
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float(), bias).to(precision)


def key_bias(mask: torch.Tensor) -> torch.Tensor | None:
    """Bias [B, 1, 1, N] that hides tokens outside ``mask``; None, which is faster, where there are none."""
    return None if mask.all() else (~mask)[:, None, None, :] * UNSEEN


def rotations(grid: tuple[int, int], width: int, device: torch.device) -> torch.Tensor:
    """Turns of queries and keys by the place of their patch, complex [h * w, width / 2].

    Half of the pairs turn with the row and half with the column, so that attention sees how far apart
    two patches are and in which direction (axial rotary embedding, Heo et al. 2024). Absolute sines and
    cosines learnt more slowly, and would tell where a chip was cut.
    """
    quarter = width // 4
    frequency = LONGEST ** -(torch.arange(quarter, device=device) / quarter)
    rows, columns = (torch.arange(side, device=device)[:, None] * frequency for side in grid)
    angles = torch.cat([rows.repeat_interleave(grid[1], 0), columns.repeat(grid[0], 1)], -1)
    return torch.polar(torch.ones_like(angles), angles)


def turn(vectors: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn each pair of numbers of vectors [..., d] by a rotation, complex [..., d / 2]."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)
