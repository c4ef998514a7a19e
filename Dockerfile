# For CPUs:        docker build -t wsi-attention .
# For NVIDIA GPUs: docker build -t wsi-attention:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Run:             docker run --rm -u "$(id -u):$(id -g)" -v "$PWD":/work wsi-attention classify -i slides -o results -m demo
# (with GPUs: add --gpus all --shm-size 2g)
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY pyproject.toml README.md LICENSE /src/
COPY wsi_attention /src/wsi_attention
RUN python -m pip install torch --index-url ${TORCH_INDEX}
RUN python -m pip install "/src${EXTRAS}" && rm -r /src
RUN useradd --uid 1000 wsi && mkdir /work && chown wsi /work
ENV HOME=/tmp
WORKDIR /work
USER wsi
ENTRYPOINT ["wsi-attention"]
CMD ["--help"]
