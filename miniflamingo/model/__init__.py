"""Frozen CLIP, resampler, gated cross-attention and frozen language model as one model."""
