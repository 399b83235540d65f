"""Where a record came from and went: its way through the stages, and the versions that read it."""
