"""A vision transformer over rasters of any bands, pretrained as a masked autoencoder.

Patches become tokens through filters generated from the wavelengths of the bands (DOFA, Xiong et al.
2024); pre-norm transformer blocks (ViT, Dosovitskiy et al. 2021) follow. Pretraining embeds visible
patches alone, and lets a small decoder fill in the hidden ones (MAE, He et al. 2022).

What a sensor did not see is NaN in a sample. A patch without any data is no token: nothing attends to
it, and its embedding is zero; a patch with gaps is told how much of it is missing. Several dates of one
place are more tokens, which attend to one another.

One batch may hold chips of several sources with bands of their own: weights are shared by all of them, since
filters and what is filled in follow from the wavelength of each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from domains.abilities import Reconstruction
from domains.contract import EncodingSpec, GroundworkError, Sample, TargetSpec
from models.encoder import Batch, DenseFeatures, Embeddings, Encoder, Masked
from models.rasters.band_differences import band_differences, band_pairs
from models.rasters.band_filters import BandFilters
from models.rasters.bands import BandReader
from models.rasters.blocks import VisionBlock, key_bias, rotations
from models.rasters.collating import collated, tokens_of
from models.rasters.configuration import PRESETS, RasterViTConfig
from models.rasters.light import in_other_light
from models.rasters.masked_decoder import MaskedDecoder, kept_bands, predicted_band, visible_order
from models.rasters.orientations import oriented, shifted
from models.rasters.patches import Patches, pooled_of, rows_of, share_of_data
from models.rasters.reconstruction import reconstruct
from models.rasters.visual_words import MEASURED_IMAGES, Vocabulary
from models.rasters.whereabouts import Whereabouts


class RasterViT(Encoder):
    """Encoder of rasters: samples of ``pixels`` [C, H, W] -> embeddings."""

    config_class = RasterViTConfig
    config: RasterViTConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    presets: ClassVar = PRESETS
    top_modules: ClassVar = ["norm"]
    has_large_products: ClassVar = True
    lora_modules: ClassVar = [
        "query_key_value",
        "attention_output",
        "feed_forward_input",
        "feed_forward_output",
    ]

    def __init__(self, config: RasterViTConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.reader = BandReader(
            config.known_bands or (),
            config.readings or (),
            config.channels or (),
            patch=self.patch,
            width=width,
            basis=config.filter_basis,
        )
        self.patch_bias = nn.Parameter(torch.zeros(width))
        self.gap = nn.Parameter(torch.zeros(width))
        self.whereabouts = Whereabouts(width)
        self.blocks = nn.ModuleList(
            VisionBlock(width, config.num_attention_heads, config.intermediate_size)
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.decoder = self._new_decoder() if config.decoder_layers else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, BandFilters):
            module.begin()
        elif isinstance(module, MaskedDecoder):
            nn.init.normal_(module.hidden, std=0.02)
            nn.init.normal_(module.age, std=0.02)
        elif isinstance(module, Whereabouts):
            module.start_from_nothing()
        elif isinstance(module, RasterViT):
            nn.init.normal_(module.gap, std=0.02)

    @property
    def patch(self) -> int:
        """Pixels on a side of a token."""
        return int((self.config.encoding or {})["patch"])

    @property
    def dates(self) -> int:
        """Dates of a sample."""
        return int((self.config.encoding or {}).get("dates", 1))

    @property
    def pixel_channels(self) -> int:
        bands = len((self.config.encoding or {})["bands"])
        return (bands + len(band_pairs(bands))) * self.dates

    def asked_width(self, target: TargetSpec) -> int:
        width = int(self.config.hidden_size)
        return width // 2 if target.level == "token" else width

    @property
    def dense_width(self) -> int:
        return int(self.config.hidden_size) * self.dates

    def tokens(self, sample: Sample) -> int:
        return tokens_of(sample, self.patch)

    def fit_input(self, encoding: EncodingSpec, samples: Sequence[Sample]) -> None:
        """Keep the statistics of known bands, and measure those of others in training samples."""
        self.fit_inputs([(encoding, samples)])

    def fit_inputs(self, inputs: Sequence[tuple[EncodingSpec, Sequence[Sample]]]) -> None:
        asked = [encoding.model_dump(mode="json") for encoding, _ in inputs]
        for its in asked:
            self._refuse_misfit(its)
        self.reader.fit([(its["bands"], samples) for its, (_, samples) in zip(asked, inputs, strict=True)])
        self.config.encoding = asked[0]
        self.config.known_bands = [dict(band) for band in self.reader.known]
        self.config.readings = [list(reading) for reading in self.reader.readings]
        self.config.channels = list(self.reader.channels)
        if self.decoder is not None:
            self.decoder.make_vocabularies([len(reading) for reading in self.reader.readings])

    def _refuse_misfit(self, asked: dict[str, Any]) -> None:
        if asked["patch"] != self.patch:
            raise GroundworkError(
                f"the encoder reads patches of {self.patch} pixels, the encoding asks for {asked['patch']}: "
                f"set patch to {self.patch}, or take another foundation"
            )
        if not asked["bands"]:
            raise GroundworkError(
                "the encoding names no band: complete it from data, which say what they hold"
            )

    def discard_decoder(self) -> None:
        """Let go of what only ``masked_forward`` needs, before the encoder is tuned to a task."""
        self.decoder = None
        self.config.decoder_layers = 0

    def restore_decoder(self) -> None:
        if self.decoder is None:
            self.config.decoder_layers = RasterViTConfig.decoder_layers
            self.decoder = self._new_decoder()
            self.decoder.apply(self._init_weights)

    def _new_decoder(self) -> MaskedDecoder:
        config = self.config
        return MaskedDecoder(
            config.hidden_size,
            config.num_attention_heads // 2,
            config.intermediate_size // 2,
            config.decoder_layers,
            [len(reading) for reading in config.readings or ()],
        )

    def fit_targets(self, samples: Sequence[Sample]) -> None:
        """Find the visual words of each source."""
        if self.decoder is None:
            return
        sources = np.array([int(sample.get("source", 0)) for sample in samples])
        for place, vocabulary in enumerate(self.decoder.vocabularies):
            own = np.random.default_rng(0).permutation(np.flatnonzero(sources == place))
            assert isinstance(vocabulary, Vocabulary)  # noqa: S101 - narrows the type
            vocabulary.fit([self._latest(samples[int(row)], place) for row in own[:MEASURED_IMAGES]])

    def _latest(self, sample: Sample, source: int) -> torch.Tensor:
        """The last date of a sample, standardised, [C, H, W]."""
        pixels = torch.from_numpy(np.array(sample["pixels"], np.float32))
        pixels = pixels[-1] if pixels.dim() == 4 else pixels
        return self.reader.standardise(pixels[None], torch.tensor([source]))[0]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return collated(samples, self.reader, self.dates, self.patch)

    def cut(self, batch: Batch) -> Patches:
        """Standardise the images of a batch and cut them into patches."""
        source = batch["source"]
        standardised = self.reader.standardise(batch["pixels"], source)
        images, device = len(standardised), standardised.device
        *_, bands, height, width = standardised.shape
        side, rows, columns = self.patch, height // self.patch, width // self.patch
        tiles = standardised.view(-1, bands, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        values = tiles.reshape(images, -1, bands * side**2)
        share = share_of_data(values)
        if len(self.reader.readings) > 1:
            own = torch.tensor([len(reading) for reading in self.reader.readings]).to(share)
            share = (share * bands / own[source][:, None]).clamp(max=1.0)
        dates = values.shape[1] // (rows * columns)
        rotation = rotations(
            (rows, columns), self.config.hidden_size // self.config.num_attention_heads, device
        )
        rotation = rotation.repeat(dates, 1)[None, :, None]
        added = self.whereabouts(images, dates, batch.get("place"), batch.get("day"))
        context = None if added is None else added.repeat_interleave(rows * columns, 1)
        return Patches(standardised, values, share, rotation, source, context, (dates, rows, columns))

    def embed(
        self,
        patches: Patches,
        chosen: torch.Tensor | None = None,
        share: torch.Tensor | None = None,
        kept: Sequence[Sequence[int]] | None = None,
    ) -> torch.Tensor:
        """Embeddings [B, K, D] of patches, zero where there is no data.

        All of them, or those ``chosen`` int64 [B, K]. ``share`` [B, K] stands for the share of data of the
        chosen ones; ``kept`` are the bands that may be seen, by source.
        """
        values, context, rotation = patches.values, patches.context, patches.rotation
        if chosen is None:
            share = patches.share
        else:
            values = rows_of(values, chosen)
            context = None if context is None else rows_of(context, chosen)
            rotation = rotation[0, chosen]
        assert share is not None  # noqa: S101 - narrows the type: it comes with what is chosen
        tokens = self.reader(values, patches.source, kept) + self.patch_bias
        tokens = tokens + (1 - share)[..., None] * self.gap
        if context is not None:
            tokens = tokens + context
        tokens = tokens.to(self.patch_bias.dtype)
        mask = share > 0
        bias = key_bias(mask)
        for block in self.blocks:
            tokens = block(tokens, rotation, bias)
        return self.norm(tokens) * mask[..., None]

    def forward(self, batch: Batch) -> Embeddings:
        patches = self.cut(batch)
        tokens = self.embed(patches)
        mask = patches.share > 0
        return Embeddings(tokens, pooled_of(tokens, mask), mask)

    def dense(self, batch: Batch) -> DenseFeatures:
        patches = self.cut(batch)
        tokens = self.embed(patches)
        # Dates lie behind one another, so that a head sees what has changed.
        pixels = [patches.pixels.flatten(1, -3), band_differences(batch["pixels"]).flatten(1, -3)]
        return DenseFeatures(
            tokens.unflatten(1, patches.grid).permute(0, 1, 4, 2, 3).flatten(1, 2),
            torch.cat(pixels, 1).nan_to_num(0.0).to(tokens.dtype),
            pixels[0].isfinite().any(1),
        )

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: torch.Generator | None = None,
        *,
        views: bool = False,
    ) -> Masked:
        """Hide ``ratio`` of the patches that hold data, and often some bands and dates, and embed the rest.

        Targets are what is in a hidden ``patch`` in one of the bands: standardised, scaled to the mean and
        the spread of that patch over all bands, NaN where there is no data; its ``edges``; what each ``band``
        of a chip looks like on the whole; and the visual ``words`` of the chip.
        """
        if self.decoder is None:
            raise GroundworkError("a tuned encoder has no decoder left: pretrain its foundation instead")
        counts = [len(reading) for reading in self.reader.readings]
        kept = [kept_bands(count, generator) for count in counts]
        wanted = [predicted_band(count, generator) for count in counts]
        patches = self.cut(batch)
        mask = patches.share > 0
        order = visible_order(mask, patches.grid[0], generator)
        rank = order.argsort(1)
        shown = (mask.sum(1) * (1 - ratio)).round().clamp(min=1)
        is_visible = mask & (rank < shown[:, None])
        # Chips that show fewer patches than others of their batch are padded with hidden ones, which
        # are then as if they held no data.
        chosen = order[:, : int(shown.max())]
        share = patches.share.gather(1, chosen) * is_visible.gather(1, chosen)
        visible = self.embed(patches, chosen, share, kept)
        pooled = pooled_of(visible, share > 0)
        hidden = mask & ~is_visible
        tokens = self.decoder(visible, rank, is_visible, mask, patches.rotation, patches.grid[0])
        features, truths = {}, {}
        for target in targets:
            if target.name == "patch":
                asked = self.decoder.fill_in(self.reader, patches, tokens, hidden, wanted)
            elif target.name == "edges":
                asked = self.decoder.trace(patches, tokens, hidden, self.patch)
            elif target.name == "band":
                asked = self.decoder.sum_up(self.reader, patches, pooled)
            elif target.name == "words":
                asked = self.decoder.spell(self.reader, patches, pooled)
            else:
                raise ValueError(f"no raster says what {target.name!r} is")
            features[target.name], truths[target.name] = asked
        return Masked(
            features, truths, (pooled, self._other_view(batch, ratio, generator)) if views else None
        )

    def _other_view(self, batch: Batch, ratio: float, generator: torch.Generator | None) -> torch.Tensor:
        """Embeddings [B, D] of other patches of the same chips, turned or mirrored."""
        [pixels] = oriented([batch["pixels"]], generator)
        # Without place and day, by which a chip would be known from the others without a look at it.
        patches = self.cut({"pixels": pixels, "source": batch["source"]})
        mask = patches.share > 0
        shown = (mask.sum(1) * (1 - ratio)).round().clamp(min=1)
        chosen = visible_order(mask, patches.grid[0], generator)[:, : int(shown.max())]
        seen = torch.arange(chosen.shape[1], device=shown.device) < shown[:, None]
        share = patches.share.gather(1, chosen) * seen
        return pooled_of(self.embed(patches, chosen, share), share > 0)

    def reconstruct(
        self, sample: Sample, ratio: float, heads: nn.ModuleDict, generator: torch.Generator
    ) -> Reconstruction:
        """See ``models.encoder.Reconstructs``."""
        return reconstruct(self, sample, ratio, heads["patch"], generator)

    def augment(self, batch: Batch, labels: torch.Tensor | None = None) -> tuple[Batch, torch.Tensor | None]:
        """Chips turned and mirrored.

        Where they are told apart on the whole, shifted as well, so that patches begin anywhere; where pixels
        are, in other light.
        """
        pixels = batch["pixels"]
        if labels is None:
            [pixels] = oriented([shifted(pixels, self.patch // 2)])
        else:
            pixels, labels = oriented([pixels, labels.view(len(labels), *pixels.shape[-2:])])
            labels = labels.flatten(1)
            optical = [band["wavelength"] is not None for band in (self.config.encoding or {})["bands"]]
            pixels = in_other_light(pixels, torch.tensor(optical, device=pixels.device))
        return {**batch, "pixels": pixels}, labels


AutoConfig.register(RasterViTConfig.model_type, RasterViTConfig)
AutoModel.register(RasterViTConfig, RasterViT)
