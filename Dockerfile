# The image of every pipeline step and of `byol` itself: the current lane on Debian 13, Python 3.13, not root.
#
#   docker build -t byol .                                    CPU
#   docker build -t byol-cuda --build-arg ACCELERATOR=cuda .  with CUDA's libraries for TensorFlow and JAX
#   docker build -t byol-tpu --build-arg ACCELERATOR=tpu .    with libtpu for JAX
#
# docs/kubeflow.md shows the same without docker.
ARG BASE=docker.io/library/debian:13-slim

FROM ${BASE} AS environment
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/byol
# Only what decides the environment: an edit of the code does not make it anew.
COPY requirements requirements/
COPY setup.py README.md Makefile .python-version ./
RUN make env LANE=current
ARG ACCELERATOR=cpu
RUN case "$ACCELERATOR" in \
        cpu) ;; \
        cuda | tpu) requirements/make_env.sh "$ACCELERATOR" ;; \
        *) echo "ACCELERATOR is cpu, cuda or tpu; received $ACCELERATOR" >&2; exit 1 ;; \
    esac

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home byol \
    # Where KFP's launcher stages artifacts; it runs as this user.
    && install --directory --owner=1000 /minio /s3 /gcs /mnt/byol
WORKDIR /opt/byol
COPY --from=environment /opt/byol/.venv .venv/
COPY setup.py README.md ./
COPY components components/
COPY trainer trainer/
COPY pipeline pipeline/
COPY kubeflow kubeflow/
ENV PATH=/opt/byol/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
CMD ["byol", "--help"]
