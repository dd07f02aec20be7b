FROM python:3.13-slim AS build
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/health-exporter
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY collectors collectors
COPY health_exporter health_exporter
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/health-exporter/bin/pip install --no-cache-dir --constraint constraints.txt /wheels/*.whl \
    && /opt/health-exporter/bin/python -m compileall -q /opt/health-exporter/lib

FROM python:3.13-slim
COPY --from=build /opt/health-exporter /opt/health-exporter
ENV PATH=/opt/health-exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# config.yml is looked for here.
WORKDIR /etc/health-exporter
USER 10054:10054
EXPOSE 10054
# Knows the default port and no route prefix: override it with other ones. The proxy variables are not for loopback.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:10054/-/healthy', timeout=3)"]
ENTRYPOINT ["health-exporter"]
