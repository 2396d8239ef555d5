"""The encoder of molecules: a graph transformer."""
