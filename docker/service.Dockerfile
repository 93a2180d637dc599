# The service: API, controller, study drivers and the MLflow server. Trials run on the workers (worker.Dockerfile).
#   docker build -f docker/service.Dockerfile -t tuneyard-service:0.1.0 .
# Where packages come through an index of your own, tell pip and uv as two secrets, of which nothing stays in the image:
#   docker build --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml ...
# Ray wants the same Python on all nodes, so this has to be worker.Dockerfile's too.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# The service trains nothing, and the CPU build of torch is smaller by gigabytes. Left empty, torch is what the index has.
ARG TORCH_BACKEND=cpu
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/tuneyard
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt uv setuptools \
    && /opt/uv/bin/uv venv "$VIRTUAL_ENV"
COPY pyproject.toml ./
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} --constraint constraints.txt \
        --requirements pyproject.toml --extra demo --extra postgres --extra s3
COPY README.md LICENSE ./
COPY search_spaces ./search_spaces
COPY service ./service
COPY trainers ./trainers
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    /opt/uv/bin/uv pip install --no-cache --build-constraint constraints.txt --no-deps .
# What is only for those who build C++ against torch, or test it, and Ray's Java.
RUN for folder in torch/test torch/include ray/jars pyarrow/include pyarrow/tests; do \
        rm -rf "$VIRTUAL_ENV"/lib/python3.*/site-packages/"$folder"; \
    done \
    && rm -rf "$VIRTUAL_ENV"/lib/python3.*/site-packages/torch/bin/test_*

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Tuneyard service" \
      org.opencontainers.image.description="Searches hyperparameters for fine-tuning: API, controller, study drivers and MLflow." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 tuneyard && useradd --uid 10001 --gid tuneyard --create-home tuneyard \
    && install -d -o tuneyard -g tuneyard -m 0700 /var/lib/tuneyard /var/lib/tuneyard/ray
COPY --from=build /opt/tuneyard /opt/tuneyard
ENV PATH=/opt/tuneyard/bin:$PATH PYTHONUNBUFFERED=1 \
    TUNEYARD_HOME=/var/lib/tuneyard TUNEYARD_HOST=0.0.0.0 TUNEYARD_PORT=8080
USER 10001:10001
WORKDIR /home/tuneyard
VOLUME /var/lib/tuneyard
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"TUNEYARD_PORT\"]}/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["tuneyard", "serve"]
