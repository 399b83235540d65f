# Lathe in a container, for CUDA (the default) or the CPU:
#   docker build -t lathe .
#   docker build -t lathe --build-arg DEVICE=cpu \
#     --build-arg PIP_ARGS="--extra-index-url <the PyTorch CPU index>" .
# As it is, it serves the chat; `docker run lathe dvc repro` trains.
# Data, models and mlflow.db are in /app.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG DEVICE=cuda

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE
ARG PIP_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# torch first: DeepSpeed is built against it.
# The check stops an image whose torch is not for its device.
# PIP_ARGS is several words, hence without quotes.
# hadolint ignore=SC2086
RUN python -m pip install $PIP_ARGS -c constraints.txt torch numpy \
    && python -c "import sys, torch; found = 'cuda' if torch.version.cuda else 'cpu'; \
sys.exit(found != '$DEVICE' and f'this torch is for {found}, the image for $DEVICE: see PIP_ARGS in the Dockerfile')"
# Without the code, which is copied last: a change of it installs nothing anew.
# hadolint ignore=SC2086
RUN extras=postgres,s3,k8s && if [ "$DEVICE" = cuda ]; then extras=$extras,gpu; fi \
    && python -m pip install $PIP_ARGS -c constraints.txt ".[$extras]"

FROM ${PYTHON_IMAGE} AS cpu
# DVC needs git; ca-certificates is for remotes over https.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*

FROM cpu AS cuda
# CUDA itself comes with torch; the driver from the host.
# Triton compiles its kernels' launchers with gcc.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${DEVICE} AS runtime
RUN useradd --create-home --uid 10001 lathe \
    && install -d -o lathe -g lathe /app /artifacts \
    && git config --system --add safe.directory /app
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 HF_HUB_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false GRADIO_ANALYTICS_ENABLED=False
WORKDIR /app
USER 10001
COPY --chown=lathe:lathe pyproject.toml dvc.yaml params.yaml .dvcignore ./
COPY --chown=lathe:lathe .dvc/config .dvc/.gitignore .dvc/
COPY --chown=lathe:lathe data/facts data/facts
COPY --chown=lathe:lathe infra infra
COPY --chown=lathe:lathe flows flows
COPY --chown=lathe:lathe stages stages
# The image holds no git history; a checkout mounted over /app brings its own, and its own .dvc.
RUN dvc config --local core.no_scm true && mkdir .lathe
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/readyz', timeout=4)"]
CMD ["python", "-m", "stages.deploy", "serve", "--host", "0.0.0.0"]
