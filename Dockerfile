# docker build -t trimtab . && docker run --gpus all --read-only --tmpfs /tmp --tmpfs /home/trimtab:mode=1777 --user 12345 \
#     -v MODEL:/model:ro -v PROFILES:/profiles:ro -p 8000:8000 trimtab /model --steering-profiles /profiles
FROM vllm/vllm-openai:v0.32.0

# The image's own packages, vLLM and torch above all, are constraints: only what they lack is installed.
RUN --mount=type=bind,target=/src,rw \
    python3 -m pip list --format=freeze --exclude-editable > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt '/src[gpu]' \
    && rm /tmp/constraints.txt \
    && useradd --uid 10001 --gid 0 --create-home trimtab \
    && chmod 0770 /home/trimtab

# Any user id will do: caches go to HOME, and torch asks for a user's name, which another id does not have.
ENV HOME=/home/trimtab USER=trimtab
WORKDIR /home/trimtab
USER 10001
EXPOSE 8000
ENTRYPOINT ["trimtab-serve"]
