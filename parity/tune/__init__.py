"""The fastest recipe that passes: candidates tried within a time box, on rows that the judging suite does not have."""
