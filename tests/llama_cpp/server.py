"""Serves one GGUF file with llama.cpp: prints its address, and ends when its standard input does.

Runs in the environment of `make test-llama-cpp`, which has xllamacpp and nothing of the project.
"""

from __future__ import annotations

import json
import socket
import sys

import xllamacpp


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = int(sys.argv[2])
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 2
    params.port = _free_port()
    # Keys and values are float16 by default, which alone changes log probabilities by a thousandth.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
