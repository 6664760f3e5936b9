"""Layers: each wraps any store and is itself a store."""
