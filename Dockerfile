# docker build -t trimtab .                                 for GPUs
# docker build -t trimtab:cpu --build-arg DEVICE=cpu .      for CPUs
# docker run --gpus all --read-only --tmpfs /tmp --user 12345 --cap-drop ALL --security-opt no-new-privileges \
#     -v MODEL:/model:ro -v PROFILES:/profiles:ro -p 127.0.0.1:8000:8000 trimtab /model --steering-profiles /profiles
ARG DEVICE=gpu

FROM vllm/vllm-openai:v0.32.0 AS gpu

# The image's own packages, vLLM and torch above all, are constraints: only what they lack is installed.
RUN --mount=type=bind,target=/src,rw \
    python3 -m pip list --format=freeze --exclude-editable > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt '/src[gpu]' \
    && rm /tmp/constraints.txt

FROM python:3.11.14-slim-bookworm AS cpu

# g++ compiles for vLLM when a server starts; libnuma is what vLLM's CPU build is linked with. Debian keeps only one
# version of each within a release, and the release is pinned above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,target=/src,rw \
    python3 -m pip install --no-cache-dir uv==0.13.8 \
    && uv pip install --system --no-cache --torch-backend cpu --constraint /src/ops/cpu.txt '/src[cpu]'

# Compiled here and not by each server: a root folder that is read-only has no room for it.
ENV TORCH_EXTENSIONS_DIR=/opt/torch_extensions
RUN python3 -c 'from trimtab.plugin.model import op_cpu; op_cpu.load()' \
    && chmod -R a+rX "$TORCH_EXTENSIONS_DIR"

# hadolint ignore=DL3006
FROM ${DEVICE}

# Any user id will do, with any group: caches go to HOME, which everybody may write, and torch asks for a user's name,
# which another id does not have. HOME is a volume, so that a read-only root does not close it. What is compiled is
# loaded from there, so it must not be mounted noexec.
RUN useradd --uid 10001 --gid 0 --create-home trimtab \
    && chmod 1777 /home/trimtab
ENV HOME=/home/trimtab \
    USER=trimtab \
    TORCHINDUCTOR_CACHE_DIR=/home/trimtab/.cache/torchinductor
VOLUME /home/trimtab
WORKDIR /home/trimtab
USER 10001

# A server that loads a large model is not ill. With another --port, give the container a health check of its own.
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30m --retries=4 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=8)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["trimtab-serve"]
