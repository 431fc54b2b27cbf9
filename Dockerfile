# The image of Sealgate: the program, libc, OpenSSL's libcrypto and CA certificates; no shell, not root.
#
# Both bases are arguments. The builder needs Rust (rust-toolchain as in Cargo.toml's rust-version) and either apt or the
# packages named below; the runtime base needs glibc, libgcc, libcrypto 3 and CA certificates, all from Debian 12 or newer.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12

FROM ${BUILDER} AS build
RUN if ! pkg-config --exists openssl || ! ls /usr/lib/llvm-*/lib/libclang.so* >/dev/null \
        || ! command -v capnp >/dev/null || ! command -v protoc >/dev/null \
        || ! test -e /usr/include/google/protobuf/descriptor.proto; then \
        apt-get update && apt-get install -y --no-install-recommends \
            capnproto libclang-dev libprotobuf-dev libssl-dev pkg-config protobuf-compiler; \
    fi
WORKDIR /source
COPY . .
ARG PROFILE=release
RUN cargo build --locked --bin sealgate --profile ${PROFILE} --target-dir /target \
    && install -D /target/*/sealgate /image/sealgate

FROM ${RUNTIME}
COPY --from=build /image/sealgate /usr/local/bin/sealgate
# Any number but 0: nothing in the image belongs to it.
USER 65532:65532
EXPOSE 8443 9090 9091
ENTRYPOINT ["/usr/local/bin/sealgate"]
