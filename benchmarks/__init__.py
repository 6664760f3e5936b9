"""Benchmarks: commands that measure both sides in one run and print medians, ratios and the machine."""
