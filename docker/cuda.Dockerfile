# PyTorch on an NVIDIA GPU, without MindSpore; see docs/backends.md to build and run it. A plain base
# is enough: PyTorch's wheel includes CUDA, and the NVIDIA Container Toolkit provides the driver.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://pypi.org/simple

COPY . /opt/mindyolo_ext
WORKDIR /opt/mindyolo_ext
RUN pip install --no-cache-dir --no-deps . packaging==26.* \
    && python tests/torch_packages.py torch > /tmp/packages.txt \
    && pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}" \
    && pip install --no-cache-dir "torch==${TORCH_VERSION}" --requirement /tmp/packages.txt \
    && install --directory --owner=1000 --group=1000 /data

# Any user can run it, even one that the image does not define; caches go to /tmp
ENV HOME=/tmp USER=user MINDYOLO_EXT_BACKEND=torch NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["mindyolo-ext"]
CMD ["doctor"]
