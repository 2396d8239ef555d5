"""What is measured, each beside its peer in the same run; see README.md in this folder."""
