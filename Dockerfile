# syntax=docker/dockerfile:1
# One image with all of unclip's programs and the shipped model; docker-compose.yml runs it as coordinator,
# workers and client. Packages come from ops/packages.txt, as on a machine without containers.
FROM debian:12-slim AS base
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
COPY ops/packages.txt /tmp/packages.txt

FROM base AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends $(awk '$1 == "build" { print $2 }' /tmp/packages.txt) \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cmake --preset release && cmake --build --preset release && strip build/bin/*

FROM base
LABEL org.opencontainers.image.title="unclip" \
      org.opencontainers.image.description="A distributed unCLIP (DALL-E 2) image generator" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends $(awk '$1 == "run" { print $2 }' /tmp/packages.txt) \
    && rm -rf /var/lib/apt/lists/* /tmp/packages.txt \
    && useradd --system --uid 10001 --create-home unclip \
    && install -d -o unclip -g unclip /artifacts
COPY --from=build /src/build/bin/unclip /src/build/bin/unclip-coordinator /src/build/bin/unclip-worker /src/build/bin/unclip-webhooks /usr/local/bin/
COPY ops/mpi-worker /usr/local/bin/
COPY models /opt/unclip/models
ENV UNCLIP_MODELS=/opt/unclip/models \
    UNCLIP_ARTIFACTS=/artifacts
USER unclip
WORKDIR /home/unclip
VOLUME /artifacts
CMD ["unclip", "--help"]
