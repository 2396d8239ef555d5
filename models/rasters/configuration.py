"""Sizes of a raster transformer, and the bands that it knows."""

from __future__ import annotations

from typing import Any

from models.encoder import EncoderConfig
from models.settings import Size

PRESETS: dict[Size, dict[str, int]] = {
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
        "filter_basis": 10,
    },
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}


class RasterViTConfig(EncoderConfig):
    """Sizes of a raster transformer, and the bands that it knows.

    ``encoding`` holds ``patch`` (pixels on a side of a token) and ``bands``.
    """

    model_type = "groundwork_raster_vit"

    hidden_size: int = 192
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 768
    filter_basis: int = 8
    """How many filters are mixed into those of a band."""
    decoder_layers: int = 2
    """Blocks of the decoder, half as wide as the encoder's; 0 once it is discarded."""
    known_bands: list[dict[str, Any]] | None = None
    """Every band that there are statistics of."""
    readings: list[list[int]] | None = None
    """For each source of samples, its bands as places in ``known_bands``; ``encoding`` is of the first."""
    channels: list[str] | None = None
    """Every channel without a wavelength that has an embedding."""

    def __post_init__(self, **kwargs: object) -> None:
        self.encoding = self.encoding or {"patch": 8, "bands": []}
        self.known_bands = self.known_bands or []
        self.readings = self.readings or []
        self.channels = self.channels or ["VV", "VH", "HH", "HV"]
        super().__post_init__(**kwargs)
