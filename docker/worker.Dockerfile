# A node of the Ray cluster: the head, or a worker that trials run on. It holds the same packages as the service, in the same
# versions and under the same Python, as Ray demands.
#   docker build -f docker/worker.Dockerfile -t tuneyard-worker .
#   docker build -f docker/worker.Dockerfile --build-arg TORCH_BACKEND=cu130 -t tuneyard-worker-gpu .
FROM python:3.12-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# cpu, or the CUDA build that the machines' driver can run, such as cu130.
ARG TORCH_BACKEND=cpu
ENV UV_TORCH_BACKEND=$TORCH_BACKEND UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/tuneyard
COPY constraints.txt ./
RUN python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt uv \
    && /opt/uv/bin/uv venv "$VIRTUAL_ENV"
COPY pyproject.toml README.md LICENSE ./
COPY search_spaces ./search_spaces
COPY service ./service
COPY trainers ./trainers
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --constraint constraints.txt --build-constraint constraints.txt ".[demo,postgres]"

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home tuneyard \
    && install -d -o tuneyard -g tuneyard -m 0700 /var/lib/tuneyard /var/lib/tuneyard/ray
COPY --from=build /opt/tuneyard /opt/tuneyard
ENV PATH=/opt/tuneyard/bin:$PATH PYTHONUNBUFFERED=1 TUNEYARD_HOME=/var/lib/tuneyard
# Nobody enters the cluster without the token. The variable names the file that holds it, not the token.
# hadolint ignore=DL3064
ENV RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/run/secrets/ray_token RAY_USAGE_STATS_ENABLED=0 HEAD_ADDRESS=127.0.0.1:6379 \
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
USER 10001
WORKDIR /home/tuneyard
VOLUME /var/lib/tuneyard
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "ray health-check --address \"$HEAD_ADDRESS\""]
STOPSIGNAL SIGTERM
# The head; compose.yaml gives a worker its own command.
CMD ["ray", "start", "--head", "--block", "--port=6379", "--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats"]
