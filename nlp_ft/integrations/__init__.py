"""The layer-wise core inside other people's loops; each file needs the one framework that it is named after."""
