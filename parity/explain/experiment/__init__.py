"""What decides the cause: one thing is changed, and whether the error goes with it."""
