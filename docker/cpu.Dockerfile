# MindSpore on a CPU; docs/backends.md says how to build and run it
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# MindSpore's libraries need OpenMP, which this base does not have
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1=* \
    && rm -rf /var/lib/apt/lists/*

COPY . /opt/mindyolo_ext
RUN pip install --no-cache-dir /opt/mindyolo_ext \
    && install --directory --owner=1000 --group=1000 /data

# any user may run it, known to the image or not; caches go to /tmp
ENV HOME=/tmp USER=user
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["mindyolo-ext"]
CMD ["doctor"]
