"""The encoder of rasters: a ViT that takes whatever bands and sizes come."""
