# The service: API, controller, study drivers and the MLflow server. Trials run on the workers (worker.Dockerfile).
#   docker build -f docker/service.Dockerfile -t tuneyard-service .
FROM python:3.12-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# The service trains nothing, and the CPU build of torch is smaller by gigabytes.
ENV UV_TORCH_BACKEND=cpu UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/tuneyard
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
ENV PATH=/opt/tuneyard/bin:$PATH PYTHONUNBUFFERED=1 TUNEYARD_HOME=/var/lib/tuneyard TUNEYARD_HOST=0.0.0.0 TUNEYARD_PORT=8080
USER 10001
WORKDIR /home/tuneyard
VOLUME /var/lib/tuneyard
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"TUNEYARD_PORT\"]}/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["tuneyard", "serve"]
