"""Encoders of the BERT family on this machine's processor, without PyTorch: what embedders and rerankers share.

files     where a model's files come from, and whether they are the right ones
bert      the graph, from the model's own weights and config, with the head that is asked for
runtime   the graph compiled, kept in a cache, and called from several threads
"""
