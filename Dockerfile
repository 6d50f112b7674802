# A CPU image of avse-ppl: docs/guides/container.md. tests/test_container.py runs its steps natively.
#
#   EXTRAS  optional parts: predictors, video, jax, train, separated by commas
#   TORCH   a wheel of PyTorch in place of what pip finds; one for the CPU saves gigabytes

FROM python:3.12-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY avse_ppl avse_ppl
RUN pip wheel --no-cache-dir --no-deps --wheel-dir dist .

FROM python:3.12-slim
ARG EXTRAS=predictors
ARG TORCH=
WORKDIR /install
COPY constraints.txt ./
COPY --from=build /build/dist dist
# What OpenCV, which tracks faces, loads of the system.
RUN case ",$EXTRAS," in *,video,*) apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/* ;; esac
RUN test -z "$TORCH" || pip install --no-cache-dir --constraint constraints.txt "torch @ $TORCH"
RUN pip install --no-cache-dir --constraint constraints.txt "$(echo dist/*.whl)[$EXTRAS]"

# Any user may run it, so that what it writes is theirs: caches go where everybody may write.
ENV HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
RUN useradd --no-create-home --shell /usr/sbin/nologin avse
USER avse
WORKDIR /data
RUN avse-ppl doctor
ENTRYPOINT ["avse-ppl"]
CMD ["--help"]
