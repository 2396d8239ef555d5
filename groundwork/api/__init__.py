"""The HTTP service: registered versions answer over a port, datasets come in over the same one."""
