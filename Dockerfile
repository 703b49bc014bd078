FROM vllm/vllm-openai:v0.32.0

# The image's own packages, vLLM and torch above all, are constraints: only what they lack is installed.
RUN --mount=type=bind,target=/src,rw \
    python3 -m pip list --format=freeze --exclude-editable > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt /src \
    && rm /tmp/constraints.txt \
    && useradd --uid 10001 --create-home trimtab

WORKDIR /app

USER 10001
EXPOSE 8000
ENTRYPOINT ["trimtab-serve"]
