# Corelab's environment as a Docker image, from the same lock as make env (built with Buildah on Debian 12).
#   docker build --tag corelab . && docker run --rm -v "$PWD:/work" -w /work corelab --cores all
FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv git make \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /opt/corelab/requirements.lock
RUN python3 -m venv /opt/corelab/venv \
 && /opt/corelab/venv/bin/pip install --no-cache-dir --require-hashes --prefer-binary \
    -r /opt/corelab/requirements.lock
ENV PATH=/opt/corelab/venv/bin:$PATH LC_ALL=C.UTF-8
ENTRYPOINT ["snakemake"]
