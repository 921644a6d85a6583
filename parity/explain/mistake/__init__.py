"""What people, exporters and kernels are known to get wrong: each says what the candidate would answer if it were so."""
