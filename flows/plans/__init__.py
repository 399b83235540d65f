"""What a run will ask of a machine and of its test: memory, hours, price, questions."""
