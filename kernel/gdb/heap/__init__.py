"""The slab allocator, read from a stopped guest."""
