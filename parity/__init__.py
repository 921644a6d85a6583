"""Artifact -> observation -> verdict."""
