"""What a user may choose about encoders and their training: forms, YAML and command lines are made of it.

Without torch, so that drawing a form or asking for help does not wait for its import.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Mode = Literal["probe", "lora", "full", "ensemble"]

Kept = Literal["best", "last"]
"""Of which epoch a training leaves the weights: that of the best validation loss, or the last."""

Size = Literal["tiny", "small", "base"]
"""Presets of an encoder; ``tiny`` is the one for laptops."""


MOST_MEMBERS = 20
"""Of an ensemble."""


class SizeSettings(BaseModel):
    """How large a fresh encoder is."""

    size: Annotated[Size, Field(description="Size of a fresh encoder (a foundation brings its own)")] = "tiny"


class PretrainingSettings(BaseModel):
    """What pretraining hides."""

    mask_ratio: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of tokens and relations hidden in a masked sample (fraction)"),
    ] = 0.4
    contrast: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Weight of telling which two views of a sample belong together, beside filling in "
            "what is hidden (images only; 0 = left out)",
        ),
    ] = 0.0


class TuningSettings(BaseModel):
    """How an encoder is adapted to a task."""

    mode: Annotated[
        Mode,
        Field(
            description="What learns: probe = a linear head on the frozen encoder (solved at once, without "
            "epochs or a learning rate, but for answers about pixels); lora = low-rank "
            "additions and the head; full = every weight; ensemble = several times every weight, from other "
            "seeds, and the mean of their answers"
        ),
    ] = "full"
    head_dropout: Annotated[
        float, Field(ge=0, lt=1, description="Dropout in the head (fraction of its inputs)")
    ] = 0.1
    computed_features: Annotated[
        bool,
        Field(
            description="Let the head see what can be computed of a record (descriptors, fingerprints) "
            "beside its embedding (not for probe)"
        ),
    ] = True
    gaussian_process: Annotated[
        bool,
        Field(
            description="Let a Gaussian process answer beside what is tuned: by similar training records, in "
            "the foundation's embedding and in what can be computed, as far as validation favours it (not "
            "for probe, nor for pixels)"
        ),
    ] = True
    adapt_epochs: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Epochs of pretraining on the task's own records, whatever their labels, before "
            "tuning (not on those held out for testing; not where it goes on from a champion's weights)",
        ),
    ] = 0
    layer_decay: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Learning rate of a layer of the encoder, as a share of that of the layer above it "
            "(full, ensemble; 1 = all alike, 0 = what suits what learns)",
        ),
    ] = 0.0
    lora_rank: Annotated[int, Field(ge=1, le=256, description="Rank of the low-rank additions (lora)")] = 8
    members: Annotated[int, Field(ge=2, le=MOST_MEMBERS, description="Models of an ensemble (ensemble)")] = 5
    patience: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Epochs without a better validation loss before stopping; 0 = as suits what learns",
        ),
    ] = 0


class TrainingSettings(BaseModel):
    """How long and how fast a model learns."""

    epochs: Annotated[
        int,
        Field(ge=0, le=10_000, description="Passes over the training rows; 0 = as many as suit what learns"),
    ] = 0
    batch_size: Annotated[
        int,
        Field(ge=0, le=65_536, description="Samples per optimiser step; 0 = as many as suit what learns"),
    ] = 0
    learning_rate: Annotated[
        float,
        Field(ge=0, le=1, description="Peak learning rate of AdamW (per step); 0 = what suits what learns"),
    ] = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=1, description="Decoupled weight decay of AdamW")] = 0.01
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed of weights, order, masks and random splits")
    ] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(
            description="Arithmetic of the matrix products; auto takes bf16 where it is faster: on a GPU "
            "that has it, and for rasters on a CPU with instructions for it"
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        Field(description="Compile the model with torch.compile: pays on a GPU and for many steps"),
    ] = False
    gradient_checkpointing: Annotated[
        bool,
        Field(description="Compute layers again on the way back: less memory, about a third more time"),
    ] = False


class FloorSettings(BaseModel):
    """What a model of pixels is compared with."""

    floor_epochs: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Passes over the training rows, at most, of the small network (U-Net) that stands "
            "beside a model of pixels; 0 = without it",
        ),
    ] = 30
