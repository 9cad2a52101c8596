# syntax=docker/dockerfile:1
#
# Both programs in one small image. The supervisor is process 1: it reaps orphans, and TERM drains.
#
#   docker build -t bellwether .
#   docker run --rm -p 8080:8080 -v bellwether:/var/lib/bellwether --stop-timeout 45 -e REDIS_URL=redis://HOST bellwether start --migrate
#
# A configuration is mounted at /etc/bellwether/bellwether.toml; secrets are files, as in REDIS_URL_FILE=/run/secrets/redis_url.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# Without rust-toolchain.toml: the image brings its own toolchain.
COPY Cargo.toml Cargo.lock ./
COPY bin bin
COPY crates crates
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release -p supervisor -p worker \
    && install -D -t /out target/release/supervisor target/release/worker

FROM debian:bookworm-slim
# The certificates are for rediss:// and for PostgreSQL over TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 bellwether \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/bellwether --shell /usr/sbin/nologin bellwether \
    && install -d -o bellwether -g bellwether -m 0700 /var/lib/bellwether
COPY --from=build /out/supervisor /out/worker /usr/local/bin/

# The container's log is the only one.
ENV BELLWETHER__SUPERVISOR__STATE_DIR=/var/lib/bellwether
ENV BELLWETHER__LOG__FILES=false
USER 10001:10001
WORKDIR /var/lib/bellwether
VOLUME /var/lib/bellwether
EXPOSE 8080
# Longer than the drain, supervisor.kill_timeout, is the business of whoever stops it: docker stop --timeout 45
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["supervisor", "healthcheck"]
ENTRYPOINT ["supervisor"]
CMD ["start"]
