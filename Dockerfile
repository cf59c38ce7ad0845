# Trimtab's server with its bundled demo. Mount your own models; the image contains none of them.
#
#   docker build -t trimtab .                              CPU
#   docker build -t trimtab --build-arg DEVICE=cuda .      CUDA
#   docker run -p 8000:8000 trimtab
#   docker run -p 8000:8000 -v /models:/models:ro trimtab serve --host 0.0.0.0 --model llm=/models/llm
#
# If CPU-only builds of torch are in a package index of their own, name it with --build-arg PIP_EXTRA_INDEX_URL=...
# Without it the CPU image gets torch's default build, which is larger.

FROM python:3.11-slim AS build

ARG DEVICE=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/trimtab
ENV PATH=/opt/trimtab/bin:$PATH

# torch has a layer of its own, because it is the largest part and changes least.
WORKDIR /src
COPY constraints.txt ./
RUN set -eu; \
    torch="$(grep '^torch==' constraints.txt)"; \
    case "$DEVICE" in \
      cpu) pip install "$torch+cpu" || \
           { echo "no CPU-only build of torch in this index: taking the default one"; pip install "$torch"; } ;; \
      cuda) pip install "$torch" ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac

COPY pyproject.toml README.md ./
COPY mapping_cache mapping_cache
COPY steering steering
COPY demo demo
COPY server server
RUN pip install --constraint constraints.txt .


FROM python:3.11-slim

ARG DEVICE=cpu
ENV PATH=/opt/trimtab/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TRIMTAB_DEVICE=$DEVICE \
    TRIMTAB_CACHE=/var/cache/trimtab

RUN useradd --create-home --uid 10001 trimtab \
    && install --directory --owner trimtab --group trimtab /var/cache/trimtab
COPY --from=build /opt/trimtab /opt/trimtab

USER trimtab
WORKDIR /home/trimtab
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["trimtab"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
