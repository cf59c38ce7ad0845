"""Reading GGUF files, llama.cpp's models in one file: their fields, tokenizer, configuration and weights."""
