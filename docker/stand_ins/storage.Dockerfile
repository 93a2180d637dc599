# What docker/rehearse.py takes where no registry can be reached: moto's S3 in memory, with the port and the bucket of compose.yaml.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/storage \
    && /opt/storage/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt "moto[s3,server]==5.2.5"

FROM ${PYTHON_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/storage /opt/storage
COPY docker/stand_ins/storage.py /opt/storage/serve.py
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/storage/bin/python", "/opt/storage/serve.py"]
