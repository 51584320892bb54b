"""Brings the layer-wise core into other training loops; each file needs only the framework that it is named after."""
