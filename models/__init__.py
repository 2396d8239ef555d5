"""What learns: encoders, objectives, heads, the training loop and the model registry."""
