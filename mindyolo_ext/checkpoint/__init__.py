"""Read, convert and write checkpoints. Loads no framework."""
