"""What a model costs: arithmetic and memory, counted without weights."""
