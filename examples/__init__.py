"""The shipped models, one folder each: builder, weights, frozen data, and the script that makes them again."""
