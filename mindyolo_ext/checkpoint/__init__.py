"""Reading, converting and writing checkpoints. No framework."""
