"""Encoders with pooling and a head."""
