# A node of the Ray cluster: the head, or a worker that trials run on. It holds what a trial needs and no more: no API, no
# database driver, no MLflow and no sampler (`[dependency-groups] worker` in pyproject.toml).
#   docker build -f docker/worker.Dockerfile -t tuneyard-worker:0.1.0 .
#   docker build -f docker/worker.Dockerfile --build-arg TORCH_BACKEND=cu130 -t tuneyard-worker-gpu:0.1.0 .
# Where packages come through an index of your own, see service.Dockerfile. Ray wants the same Python on all nodes, so this
# has to be that of service.Dockerfile too.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# cpu, or the CUDA build that the machines' driver can run, such as cu130. Left empty, torch is what the index has.
ARG TORCH_BACKEND=cpu
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/tuneyard
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt uv \
    && /opt/uv/bin/uv venv "$VIRTUAL_ENV"
COPY pyproject.toml ./
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} --constraint constraints.txt --group worker
# What is only for those who build C++ against torch, or test it, and Ray's Java.
RUN for folder in torch/test torch/include ray/jars pyarrow/include pyarrow/tests; do \
        rm -rf "$VIRTUAL_ENV"/lib/python3.*/site-packages/"$folder"; \
    done \
    && rm -rf "$VIRTUAL_ENV"/lib/python3.*/site-packages/torch/bin/test_*
COPY search_spaces ./app/search_spaces
COPY trainers ./app/trainers
COPY service/__init__.py service/clock.py service/folders.py ./app/service/
COPY service/checkpoints ./app/service/checkpoints
COPY service/domain ./app/service/domain
COPY service/execution ./app/service/execution
RUN python -m compileall -q app

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Tuneyard worker" \
      org.opencontainers.image.description="A node of the Ray cluster on which Tuneyard's trials run." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 tuneyard && useradd --uid 10001 --gid tuneyard --create-home tuneyard \
    && install -d -o tuneyard -g tuneyard -m 0700 /var/lib/tuneyard
COPY --from=build /opt/tuneyard /opt/tuneyard
COPY --from=build /src/app /opt/tuneyard/app
# Nobody enters the cluster without the token. The variable names the file that holds it, not the token.
# hadolint ignore=DL3064
ENV PATH=/opt/tuneyard/bin:$PATH PYTHONPATH=/opt/tuneyard/app PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/run/secrets/ray_token RAY_USAGE_STATS_ENABLED=0 \
    RAY_ROTATION_MAX_BYTES=20971520 RAY_ROTATION_BACKUP_COUNT=1 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 \
    TUNEYARD_WORKER_CACHE=/var/lib/tuneyard/cache
USER 10001:10001
WORKDIR /home/tuneyard
VOLUME /var/lib/tuneyard
# The node's own raylet: whoever starts one gives it this port.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "service.execution.alive", "6380"]
STOPSIGNAL SIGTERM
# The head; compose.yaml gives a worker its own command.
CMD ["ray", "start", "--head", "--block", "--port=6379", "--node-manager-port=6380", "--num-cpus=0", \
     "--include-dashboard=false", "--disable-usage-stats"]
