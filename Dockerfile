# syntax=docker/dockerfile:1
# fgfast for GPU users. docs/release.md says how to build and run it, and that it has not been built yet.
ARG CUDA=13.0.1
ARG UBUNTU=24.04

# Compiles the native ops, with their CUDA implementations, into a wheel.
FROM nvidia/cuda:${CUDA}-devel-ubuntu${UBUNTU} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir build
COPY pyproject.toml CMakeLists.txt README.md LICENSE /src/
COPY engine /src/engine
COPY fgfast /src/fgfast
# Without a fallback to NumPy: an image without the native ops must not be made.
RUN SKBUILD_CMAKE_DEFINE=FGFAST_CUDA=ON /build/bin/python -m build --wheel --outdir /wheels /src \
 && ls /wheels/fgfast-*-cp*.whl

FROM nvidia/cuda:${CUDA}-runtime-ubuntu${UBUNTU}
ARG EXTRAS=models,text,parquet
# torch's wheels bring the CUDA libraries that they were built for.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/fgfast
ENV PATH=/opt/fgfast/bin:$PATH
RUN pip install --no-cache-dir --index-url ${TORCH_INDEX} torch torchvision
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "fgfast[${EXTRAS}] @ file://$(ls /wheels/fgfast-*-cp*.whl)" \
 && python -c "from fgfast import ops; assert ops.implementation() == 'native'"
RUN useradd --create-home fgfast && mkdir /work /cache /state && chown fgfast /work /cache /state
USER fgfast
# The key of the notes about the cache lies beside it, never in it.
ENV FGFAST_CACHE=/cache HF_HOME=/cache/huggingface XDG_STATE_HOME=/state
VOLUME /cache /state
WORKDIR /work
ENTRYPOINT ["fgfast"]
CMD ["--help"]
