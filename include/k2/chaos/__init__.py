"""`./k2 chaos` and `./k2 soak`: faults of a seeded plan against a whole platform, and what long load does to it."""
