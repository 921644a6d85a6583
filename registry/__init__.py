"""Verdict -> release -> channel -> verified files at a consumer."""
