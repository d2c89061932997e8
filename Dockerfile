# One image, many commands: every process of tutti is this image with another command (see compose.yml).
# PYTHON_IMAGE: pin a digest in CI.
# PIP_FIND_LINKS: where wheels lie when torch's CPU index cannot be reached; /context/wheels is the folder wheels/ here.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ARG PIP_FIND_LINKS=""
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/tutti
ENV PATH=/opt/tutti/bin:$PATH
# torch by itself and first: its default wheel for Linux brings gigabytes of CUDA. It changes least, so it is cached longest.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,target=/context \
    if [ -n "$PIP_FIND_LINKS" ]; then PIP_FIND_LINKS="$PIP_FIND_LINKS" pip install torch==2.13.0; \
    else pip install torch==2.13.0 --index-url "$TORCH_INDEX"; fi
COPY requirements.lock /build/
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps -r /build/requirements.lock
# The extra `kafka` (pyproject.toml), 4 MB with librdkafka in it: the image is the same whatever the broker.
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps confluent-kafka==2.16.1
COPY pyproject.toml README.md /build/
COPY protos /build/protos
COPY services /build/services
COPY orchestrator /build/orchestrator
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps /build

FROM ${PYTHON_IMAGE}
# libgomp: FAISS and scikit-learn use it; slim images come without.
RUN if ! ldconfig -p | grep -q libgomp.so.1; then \
    apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*; fi \
    && useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tutti \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/tutti /opt/tutti
COPY feature_repo /opt/tutti/feature_repo
ENV PATH=/opt/tutti/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TUTTI_HOME=/data \
    TUTTI_FEATURE_REPO=/opt/tutti/feature_repo
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
CMD ["tutti", "--help"]
