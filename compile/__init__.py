"""Source model -> lowered graph -> quantized graph -> artifact for each target."""
