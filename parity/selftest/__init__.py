"""The gate tests itself: defects are planted, and an oracle that it does not see says which it had to catch."""
