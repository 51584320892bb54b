"""Builds and loads models: text encoders with pooling and a head, and torchvision networks with a head."""
