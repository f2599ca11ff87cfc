"""Few-shot evaluation."""
