"""How an adapter is trained: examples, teacher, student, the loop, and checkpoints that resume exactly."""
