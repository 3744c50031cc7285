# MindSpore on Ascend; see docs/ascend.md to build and run it. BASE is an image with CANN and
# Python 3.10 to 3.12.
ARG BASE
FROM ${BASE}
ARG SET_ENV=/usr/local/Ascend/ascend-toolkit/set_env.sh
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

COPY . /opt/mindyolo_ext
RUN source "${SET_ENV}" \
    && pip install --no-cache-dir /opt/mindyolo_ext "${ASCEND_HOME_PATH}"/lib64/te-*-py3-none-any.whl \
        "${ASCEND_HOME_PATH}"/lib64/hccl-*-py3-none-any.whl

# CANN's script sets its variables, so every command starts through it
ENV SET_ENV=${SET_ENV}
WORKDIR /data
ENTRYPOINT ["/bin/bash", "-c", "source \"${SET_ENV}\" && exec mindyolo-ext \"$@\"", "mindyolo-ext"]
CMD ["doctor"]
