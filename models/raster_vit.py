"""A vision transformer over rasters of any bands, pretrained as a masked autoencoder.

Patches become tokens through filters generated from the wavelengths of the bands (DOFA, Xiong et al.
2024); pre-norm transformer blocks (ViT, Dosovitskiy et al. 2021) follow. Pretraining embeds visible
patches alone, and lets a small decoder fill in the hidden ones (MAE, He et al. 2022).

What a sensor did not see is NaN in a sample. A patch without any data is no token: nothing attends to
it, and its embedding is zero; a patch with gaps is told how much of it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from domains.contract import EncodingSpec, GroundworkError, Sample, TargetSpec
from models.bands import BandFilters, channel_name, measure, same_band, what_matters
from models.encoder import Batch, DenseFeatures, Embeddings, Encoder, EncoderConfig, Masked
from models.vision_blocks import VisionBlock, key_bias, rotations

FLAT = 1e-4
"""Added to the variance of a patch, in standardised units: the noise of flat ones is not worth predicting."""


class RasterViTConfig(EncoderConfig):
    """Sizes of a raster transformer, and the bands that it knows.

    ``encoding`` holds ``patch`` (pixels on a side of a token) and ``bands``.
    """

    model_type = "groundwork_raster_vit"

    hidden_size: int = 192
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 768
    filter_basis: int = 12
    """How many filters are mixed into those of a band."""
    decoder_layers: int = 2
    """Blocks of the decoder, half as wide as the encoder's; 0 once it is discarded."""
    known_bands: list[dict[str, Any]] | None = None
    """Every band that there are statistics of; those of ``encoding`` first and in its order."""
    channels: list[str] | None = None
    """Every channel without a wavelength that has an embedding."""

    def __post_init__(self, **kwargs: object) -> None:
        self.encoding = self.encoding or {"patch": 8, "bands": []}
        self.known_bands = self.known_bands or []
        self.channels = self.channels or ["VV", "VH", "HH", "HV"]
        super().__post_init__(**kwargs)


class Patches(NamedTuple):
    """B images of h × w patches, N = h * w."""

    values: torch.Tensor
    """[B, N, C * patch²], standardised; NaN where there is no data."""
    share: torch.Tensor
    """[B, N], share of the values that are data."""
    rotation: torch.Tensor
    """Complex [1, N, 1, 1, d / 2], turns heads of d numbers."""
    grid: tuple[int, int]


class MaskedDecoder(nn.Module):
    """Fills in hidden patches from the embeddings of visible ones."""

    def __init__(self, config: RasterViTConfig) -> None:
        super().__init__()
        width = config.hidden_size // 2
        self.narrow = nn.Linear(config.hidden_size, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(
            VisionBlock(width, config.num_attention_heads // 2, config.intermediate_size // 2)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.hidden_size)

    def forward(
        self, visible: torch.Tensor, rank: torch.Tensor, is_visible: torch.Tensor, patches: Patches
    ) -> torch.Tensor:
        """Features [M, D] of the M hidden patches that hold data.

        Of the embeddings ``visible`` [B, K, D], that of rank k belongs to the patch whose ``rank``
        int64 [B, N] is k, where ``is_visible`` bool [B, N].
        """
        narrow = self.narrow(visible)
        width = narrow.shape[-1]
        place = rank.clamp(max=visible.shape[1] - 1)[..., None].expand(-1, -1, width)
        tokens = torch.where(is_visible[..., None], narrow.gather(1, place), self.hidden)
        mask = patches.share > 0
        bias = key_bias(mask)
        for layer in self.layers:
            tokens = layer(tokens, patches.rotation, bias)
        return self.widen(self.norm(tokens[mask & ~is_visible]))


class RasterViT(Encoder):
    """Encoder of rasters: samples of ``pixels`` [C, H, W] -> embeddings."""

    config_class = RasterViTConfig
    config: RasterViTConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    presets: ClassVar = {
        "tiny": {
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "intermediate_size": 768,
        },
        "small": {
            "hidden_size": 256,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "intermediate_size": 1024,
        },
        "base": {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    }
    top_modules: ClassVar = ["norm"]
    lora_modules: ClassVar = [
        "query_key_value",
        "attention_output",
        "feed_forward_input",
        "feed_forward_output",
    ]

    band_mean: torch.Tensor
    band_spread: torch.Tensor
    band_wavelength: torch.Tensor
    band_channel: torch.Tensor

    def __init__(self, config: RasterViTConfig) -> None:
        super().__init__(config)
        width, known = config.hidden_size, len(config.known_bands or ())
        self.filters = BandFilters(self.patch, width, config.filter_basis, config.channels or ())
        self.patch_bias = nn.Parameter(torch.zeros(width))
        self.gap = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(
            VisionBlock(width, config.num_attention_heads, config.intermediate_size)
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.decoder = MaskedDecoder(config) if config.decoder_layers else None
        # One element for each known band; ``fit_input`` fills them.
        self.register_buffer("band_mean", torch.zeros(known))
        self.register_buffer("band_spread", torch.ones(known))
        self.register_buffer("band_wavelength", torch.ones(known))
        self.register_buffer("band_channel", torch.full((known,), -1))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, BandFilters):
            # Coefficients have unit variance: so have the tokens of patches that have it.
            nn.init.normal_(module.basis, std=(len(module.basis) ** 0.5 * self.patch) ** -1)
        elif isinstance(module, MaskedDecoder):
            nn.init.normal_(module.hidden, std=0.02)
        elif isinstance(module, RasterViT):
            nn.init.normal_(module.gap, std=0.02)

    @property
    def patch(self) -> int:
        """Pixels on a side of a token."""
        return int((self.config.encoding or {})["patch"])

    @property
    def pixel_channels(self) -> int:
        return len((self.config.encoding or {})["bands"])

    def tokens(self, sample: Sample) -> int:
        height, width = sample["pixels"].shape[1:]
        return (height // self.patch) * (width // self.patch)

    def fit_input(self, encoding: EncodingSpec, samples: Sequence[Sample]) -> None:
        """Keep the statistics of known bands, and measure those of others in training samples."""
        asked = encoding.model_dump(mode="json")
        if asked["patch"] != self.patch:
            raise GroundworkError(
                f"the encoder reads patches of {self.patch} pixels, the encoding asks for {asked['patch']}: "
                f"set patch to {self.patch}, or take another foundation"
            )
        if not asked["bands"]:
            raise GroundworkError(
                "the encoding names no band: complete it from data, which say what they hold"
            )
        bands, known = [what_matters(band) for band in asked["bands"]], self.config.known_bands or []
        rows = [
            next((row for row, other in enumerate(known) if same_band(other, band)), -1) for band in bands
        ]
        fresh = [column for column, row in enumerate(rows) if row < 0]
        statistics = torch.stack([self.band_mean, self.band_spread], 1)
        if fresh:
            measured = torch.from_numpy(measure(samples, fresh, bands))
            statistics = torch.cat([statistics, measured.to(statistics)])
            for place, column in enumerate(fresh):
                rows[column] = len(known) + place
        # The bands of the encoding come first and in its order, so that a slice finds them.
        rows += [row for row in range(len(known)) if row not in rows]
        self.config.known_bands = bands + [known[row] for row in rows[len(bands) :]]
        self.config.encoding = asked
        self.band_mean, self.band_spread = (column[rows].clone() for column in statistics.T)
        self._find_filters()

    def _find_filters(self) -> None:
        """Say for each known band which filters are its own, and make room for new channels."""
        bands, channels = self.config.known_bands or [], list(self.config.channels or ())
        for name in [channel_name(band) for band in bands if band["wavelength"] is None]:
            if name not in channels:
                self.filters.add_channel(name)
                channels.append(name)
        self.config.channels = channels
        rows = [channels.index(channel_name(band)) if band["wavelength"] is None else -1 for band in bands]
        self.band_channel = torch.tensor(rows).to(self.band_channel)
        # A channel without a wavelength never looks at its number, but a logarithm is taken of it.
        self.band_wavelength = torch.tensor([band["wavelength"] or 1.0 for band in bands]).to(self.band_mean)

    def discard_decoder(self) -> None:
        """Let go of what only ``masked_forward`` needs, before the encoder is tuned to a task."""
        self.decoder = None
        self.config.decoder_layers = 0

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples -> ``size`` [B] and ``pixels`` float32 [B, C, H, W].

        Chips smaller than the largest are padded with NaN below and to the right. Other arrays are
        stacked as they are. Raises GroundworkError for chips of other bands, or whose sides are no
        multiple of the patch.
        """
        bands = (self.config.encoding or {})["bands"]
        if not bands or len(bands) > len(self.band_mean):
            raise GroundworkError("the encoder has no statistics of its bands yet: fit it to its input first")
        shapes = [sample["pixels"].shape for sample in samples]
        height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
        pixels = np.full((len(samples), len(bands), height, width), np.nan, np.float32)
        for image, sample in zip(pixels, samples, strict=True):
            count, rows, columns = sample["pixels"].shape
            if count != len(bands):
                names = ", ".join(str(band["name"]) for band in bands)
                raise GroundworkError(f"a chip holds {count} bands where {len(bands)} are read: {names}")
            if rows % self.patch or columns % self.patch:
                raise GroundworkError(
                    f"a chip of {rows} × {columns} pixels cannot be cut into patches of {self.patch}: "
                    "choose a chip that is a multiple of the patch"
                )
            image[:, :rows, :columns] = sample["pixels"]
        batch = {
            "size": torch.tensor([self.tokens(sample) for sample in samples]),
            "pixels": torch.from_numpy(pixels).nan_to_num_(*(torch.nan,) * 3),  # infinite is no data either
        }
        for name in samples[0].keys() - {"pixels"}:
            batch[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]))
        return batch

    def standardise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] in physical units -> in spreads from the mean of each band."""
        bands = self.pixel_channels
        return (pixels - self.band_mean[:bands, None, None]) * (1 / self.band_spread[:bands, None, None])

    def cut(self, pixels: torch.Tensor) -> Patches:
        """Standardise images [B, C, H, W] and cut them into patches."""
        batch, bands, height, width = pixels.shape
        side, grid = self.patch, (height // self.patch, width // self.patch)
        tiles = self.standardise(pixels).view(batch, bands, grid[0], side, grid[1], side)
        values = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid[0] * grid[1], -1)
        share = 1 - values.isnan().float().mean(-1)
        rotation = rotations(grid, self.config.hidden_size // self.config.num_attention_heads, pixels.device)
        return Patches(values, share, rotation[None, :, None, None], grid)

    def embed(self, values: torch.Tensor, share: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """Patches [B, K, C * patch²] -> embeddings [B, K, D], zero where the share of data [B, K] is."""
        bands = self.pixel_channels
        filters = self.filters(self.band_wavelength[:bands], self.band_channel[:bands])
        content = values.nan_to_num(0.0).to(filters.dtype) @ filters
        tokens = content + self.patch_bias + (1 - share)[..., None] * self.gap
        tokens = tokens.to(self.patch_bias.dtype)
        mask = share > 0
        bias = key_bias(mask)
        for block in self.blocks:
            tokens = block(tokens, rotation, bias)
        return self.norm(tokens) * mask[..., None]

    def forward(self, batch: Batch) -> Embeddings:
        patches = self.cut(batch["pixels"])
        tokens = self.embed(patches.values, patches.share, patches.rotation)
        mask = patches.share > 0
        return Embeddings(tokens, tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1), mask)

    def dense(self, batch: Batch) -> DenseFeatures:
        patches = self.cut(batch["pixels"])
        tokens = self.embed(patches.values, patches.share, patches.rotation)
        pixels = self.standardise(batch["pixels"])
        seen = pixels.isfinite()
        return DenseFeatures(
            tokens.transpose(1, 2).unflatten(2, patches.grid),
            torch.where(seen, pixels, 0).to(tokens.dtype),
            seen.any(1),
        )

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: torch.Generator | None = None,
    ) -> Masked:
        """Hide ``ratio`` of the patches that hold data, and embed the others.

        The target is what is in a hidden patch: standardised bands, scaled to the mean and the
        spread of that patch, NaN where there is no data.
        """
        if self.decoder is None:
            raise GroundworkError("a tuned encoder has no decoder left: pretrain its foundation instead")
        [target] = targets
        patches = self.cut(batch["pixels"])
        values, share = patches.values, patches.share
        mask = share > 0
        noise = torch.rand(share.shape, generator=generator, device=share.device)
        order = noise.masked_fill(~mask, 2.0).argsort(1)
        rank = order.argsort(1)
        kept = (mask.sum(1) * (1 - ratio)).round().clamp(min=1)
        is_visible = mask & (rank < kept[:, None])
        # Chips that show fewer patches than others of their batch are padded with hidden ones, which
        # are then as if they held no data.
        chosen = order[:, : int(kept.max())]
        first = torch.arange(len(chosen), device=chosen.device)[:, None] * values.shape[1]
        visible = self.embed(
            # Whole rows, which is much faster than to gather element by element.
            values.flatten(0, 1).index_select(0, (chosen + first).flatten()).view(*chosen.shape, -1),
            share.gather(1, chosen) * is_visible.gather(1, chosen),
            patches.rotation[0, chosen],
        )
        features = self.decoder(visible, rank, is_visible, patches)
        return Masked(
            {target.name: features},
            {target.name: _evened(values[mask & ~is_visible], share[mask & ~is_visible])},
        )


def _evened(hidden: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Patches [M, k] scaled to their own mean and spread; ``share`` [M] of each is data, the rest is NaN."""
    # Most have no gaps, and to look for some in each costs as much as a layer.
    mean_of = torch.mean if (share == 1).all() else torch.nanmean
    centred = hidden - mean_of(hidden, -1, keepdim=True)
    return centred * (mean_of(centred.square(), -1, keepdim=True) + FLAT).rsqrt()


AutoConfig.register(RasterViTConfig.model_type, RasterViTConfig)
AutoModel.register(RasterViTConfig, RasterViT)
