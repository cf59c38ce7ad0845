"""The generate loop and what steers it. Knows token ids, tensors and models; nothing of HTTP."""
