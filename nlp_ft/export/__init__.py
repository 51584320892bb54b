"""Exports: a run folder whose model another engine than PyTorch computes, checked against the original."""
