"""The embedded world: scenes drawn from OpenMoji pictures, and its two frozen models."""
