"""Run once, before training: fetch what is needed and write shards."""
