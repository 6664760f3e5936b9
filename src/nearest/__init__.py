"""nearest: vector search in production, from a laptop to a cluster."""
