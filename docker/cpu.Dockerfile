# MindSpore on a CPU; see docs/backends.md to build and run it
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# MindSpore's libraries need OpenMP, which the base image does not have
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1=* \
    && rm -rf /var/lib/apt/lists/*

COPY . /opt/mindyolo_ext
RUN pip install --no-cache-dir /opt/mindyolo_ext \
    && install --directory --owner=1000 --group=1000 /data

# Any user can run it, even one that the image does not define; caches go to /tmp
ENV HOME=/tmp USER=user
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["mindyolo-ext"]
CMD ["doctor"]
