# The product image: every role of tesk (serve, taskmaster, filer, reporter) and the static shim for executors.
# Pinned: the base by its tag, the dependencies by uv.lock. `scripts/image` builds it where no registry can be reached.
ARG BASE=docker.io/library/debian:12.12-slim

FROM ${BASE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*

FROM base AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/tesk UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy \
    UV_NO_CACHE=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv gcc musl-tools \
    && python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE hatch_build.py ./
RUN /opt/uv/bin/uv sync --locked --no-dev --no-install-project --compile-bytecode
COPY tesk ./tesk
RUN /opt/uv/bin/uv sync --locked --no-dev --no-editable --compile-bytecode \
    && mkdir -p /tesk && cp tesk/shim/shim /tesk/shim

FROM base
COPY --from=build /opt/tesk /opt/tesk
COPY --from=build /tesk /tesk
ENV PATH=/opt/tesk/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["/opt/tesk/bin/python", "-m", "tesk"]
