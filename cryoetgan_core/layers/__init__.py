"""Convolutions that suit thin layers and small volumes."""
