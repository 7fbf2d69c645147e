# docker build -t vidtad .                          for machines without a GPU
# docker build -t vidtad --build-arg DEVICE=cuda .  with CUDA, for docker run --gpus all
FROM python:3.13-slim

ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 PYTHONUNBUFFERED=1

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vidtad vidtad
# pip's PyTorch comes with gigabytes of CUDA; uv knows where the one without is.
RUN case "$DEVICE" in \
      cpu) pip install uv && uv pip install --system --torch-backend cpu . && pip uninstall --yes uv ;; \
      cuda) pip install . ;; \
      *) echo "DEVICE=$DEVICE: write cpu or cuda" >&2; exit 2 ;; \
    esac

# Whoever runs it (docker run --user) may write to these; nobody is root.
RUN useradd --create-home vidtad && mkdir /data /cache && chmod 1777 /data /cache /home/vidtad
ENV HOME=/home/vidtad USER=vidtad VIDTAD_CACHE=/cache NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER vidtad
WORKDIR /data
ENTRYPOINT ["vidtad"]
CMD ["--help"]
