"""The models, tokenizers and requests that the benchmarks run."""
