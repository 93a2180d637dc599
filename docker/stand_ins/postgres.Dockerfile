# What docker/rehearse.py takes where no registry can be reached: Debian's PostgreSQL, started with the variables of compose.yaml.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm
FROM ${PYTHON_IMAGE}
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid postgres --no-create-home postgres \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data
COPY docker/stand_ins/postgres.sh /usr/local/bin/start-postgres
ENV PGDATA=/var/lib/postgresql/data
USER 999:999
WORKDIR /
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
CMD ["bash", "/usr/local/bin/start-postgres"]
