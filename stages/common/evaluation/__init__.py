"""What is asked of a candidate, how its answers are measured, and how candidates compare."""
