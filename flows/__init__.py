"""What happens: ingest, pretrain, fine-tune, predict, and the settings that draw their forms."""
