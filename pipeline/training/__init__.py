"""Training of adapters: examples, teacher, student, the loop, and checkpoints that resume exactly."""
