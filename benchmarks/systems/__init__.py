"""The systems that `benchmarks.peers` compares: ours, transformers', and the published loop."""
