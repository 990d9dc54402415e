# Two images. `server` serves environments: small, no torch. `trainer` has torch and trains against servers.
#
#   docker build --target server -t turnwise-server .
#   docker build --target trainer -t turnwise-trainer .
#
# compose.yaml does that for you. A package index of your own is a build argument with pip's own name, PIP_INDEX_URL for
# instance; the stages that install know it, and no layer of the two images does. For the trainer, PIP_EXTRA_INDEX_URL
# with PyTorch's index of CPU wheels saves some gigabytes of CUDA.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python -m venv --without-pip /opt/turnwise
COPY pyproject.toml constraints.txt scripts/requirements.py ./

# The classic builder of docker-compose 1.29 forgets arguments from stage to stage.
FROM base AS wheel
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT
COPY . .
RUN python -m pip wheel --no-deps --wheel-dir /wheel .


# Dependencies before code: a new image of edited code is a matter of seconds.
FROM base AS server-packages
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT
RUN python requirements.py server search sql > requirements.txt \
    && python -m pip --python /opt/turnwise/bin/python install -r requirements.txt -c constraints.txt
COPY --from=wheel /wheel /wheel
RUN python -m pip --python /opt/turnwise/bin/python install --no-deps --no-index /wheel/*.whl

FROM ${PYTHON} AS server
COPY --from=server-packages /opt/turnwise /opt/turnwise
# Whoever the container runs as makes a directory of its own here; a fresh volume gets these permissions.
RUN install -d -m 1777 /var/lib/turnwise
ENV PATH=/opt/turnwise/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
    TURNWISE_HOST=0.0.0.0 TURNWISE_JOURNAL=/var/lib/turnwise/journals
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["turnwise"]
CMD ["serve", "household"]


FROM base AS trainer-packages
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT
RUN python requirements.py trainer > requirements.txt \
    && python -m pip --python /opt/turnwise/bin/python install -r requirements.txt -c constraints.txt
COPY --from=wheel /wheel /wheel
RUN python -m pip --python /opt/turnwise/bin/python install --no-deps --no-index /wheel/*.whl

FROM ${PYTHON} AS trainer
COPY --from=trainer-packages /opt/turnwise /opt/turnwise
# Models and runs; a fresh volume gets these permissions.
RUN install -d -m 1777 /work
ENV PATH=/opt/turnwise/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["turnwise"]
CMD ["train", "--help"]


# What a build without --target makes.
FROM server
