#!/usr/bin/env bash
# Runs client libraries' own test suites against a server.
#
#   tests/clients/run.sh ENDPOINT [etcd-client|etcd3|aetcd]...
#
# ENDPOINT is host:port of a fresh single member: the suites write, delete all keys, and some turn authorization on
# and off. Give each suite its own member, or those after a failed authorization test fail too. etcd-client wants tokens
# that last 4 s at most (--auth-token-ttl 3).
# The libraries come from their registries (crates.io, PyPI) at the versions below and stay outside the repository, in
# $KONTIKI_CLIENTS (~/.cache/kontiki/clients). The suites call etcdctl: $ETCDCTL_BIN, or the one in PATH.
# Prints one line "SUITE: N passed, N failed" each and the names of what failed; compare.sh holds them against the baseline.
set -euo pipefail

endpoint=${1:?usage: run.sh ENDPOINT [SUITE]...}
shift
suites=${*:-etcd-client etcd3 aetcd}
cache=${KONTIKI_CLIENTS:-$HOME/.cache/kontiki/clients}
etcd_client=0.21.1
etcd3=0.12.0
aetcd=1.0.0
mkdir -p "$cache/bin" "$cache/src" "$cache/logs"

# A suite may take this long, in seconds: a client that waits for ever is a failure, not a hang.
suite_max=${SUITE_MAX:-600}

# An etcdctl that talks to the endpoint, also when the suite does not say where.
cat >"$cache/bin/etcdctl" <<'SH'
#!/usr/bin/env bash
case " $* " in
*' --endpoints'*) ;;
*) export ETCDCTL_ENDPOINTS=$CLIENTS_ENDPOINT ;;
esac
exec "$CLIENTS_ETCDCTL" "$@"
SH
chmod +x "$cache/bin/etcdctl"
CLIENTS_ETCDCTL=${ETCDCTL_BIN:-$(command -v etcdctl)}
CLIENTS_ENDPOINT=$endpoint
export CLIENTS_ETCDCTL CLIENTS_ENDPOINT

# venv NAME PACKAGE...: a Python environment of that name.
venv() {
    local dir=$cache/venv-$1
    shift
    [ -e "$dir/complete" ] && return
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/pip" install -q --disable-pip-version-check "$@"
    touch "$dir/complete"
}

# sdist NAME VERSION: the source of a Python package, with its tests.
sdist() {
    [ -d "$cache/src/$1-$2" ] && return
    python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$cache/sdist" "$1==$2"
    tar -xzf "$cache/sdist/$1-$2.tar.gz" -C "$cache/src"
}

# pytest_suite NAME VENV DIRECTORY ARGUMENT...: runs it and tells what came of it.
pytest_suite() {
    local name=$1 python=$cache/venv-$2/bin/python dir=$3 log=$cache/logs/$1.log
    shift 3
    (cd "$dir" && PATH=$cache/bin:$PATH timeout "$suite_max" "$python" -m pytest -q -rfE --tb=short "$@") >"$log" 2>&1 || true
    grep -E '^(FAILED|ERROR) ' "$log" | sed -E 's/^(FAILED|ERROR) ([^ ]+).*/\2/' | sort -u >"$cache/logs/$name.failed"
    local passed failed
    passed=$(grep -oE '[0-9]+ passed' "$log" | tail -1 | cut -d' ' -f1)
    failed=$(wc -l <"$cache/logs/$name.failed")
    [ -n "$passed" ] || { echo "$name: did not finish, see $log"; return 1; }
    echo "$name: $passed passed, $failed failed"
    sed 's/^/  /' "$cache/logs/$name.failed"
}

run_etcd3() {
    sdist etcd3 $etcd3
    # Some tests use the library's default endpoint: make it the one asked for.
    sed -i -E "s/host='[^']*', port=[0-9]+/host='${endpoint%:*}', port=${endpoint##*:}/" "$cache/src/etcd3-$etcd3/etcd3/client.py"
    # Its generated code and its tests need libraries of their time.
    venv etcd3 'protobuf==3.20.3' grpcio six tenacity pytest mock hypothesis==5.40.0
    PYTHON_ETCD_HTTP_URL=http://$endpoint TEST_ETCD_VERSION=v3.5.1 \
        pytest_suite etcd3 etcd3 "$cache/src/etcd3-$etcd3" tests/test_etcd3.py -p no:cacheprovider
}

run_aetcd() {
    sdist aetcd $aetcd
    sed -i -E "s/host: str = '[^']*'/host: str = '${endpoint%:*}'/; s/port: int = [0-9]+/port: int = ${endpoint##*:}/" \
        "$cache/src/aetcd-$aetcd/aetcd/client.py"
    venv aetcd 'grpcio>1.66' 'protobuf>4,<8' pytest==9.0.3 pytest-asyncio==1.3.0 pytest-mock==3.15.1 pytest-cov==7.1.0
    TEST_ETCD_HTTP_URL=http://$endpoint \
        pytest_suite aetcd aetcd "$cache/src/aetcd-$aetcd" tests/integration -p no:cacheprovider
}

run_etcd-client() {
    local src=$cache/src/etcd-client-$etcd_client log=$cache/logs/etcd-client.log
    if [ ! -e "$src/complete" ]; then
        rm -rf "$src" "$cache/crate"
        mkdir -p "$cache/crate"
        printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[lib]\npath = "lib.rs"\n[dependencies]\netcd-client = "=%s"\n' \
            $etcd_client >"$cache/crate/Cargo.toml"
        : >"$cache/crate/lib.rs"
        (cd "$cache/crate" && cargo fetch -q)
        cp -r "$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "etcd-client-$etcd_client" | head -1)" "$src"
        # The suite's endpoint is fixed; from now on it is what it is built for.
        sed -i 's/"localhost:2379"/env!("TEST_ENDPOINT")/' "$src/tests/testing.rs"
        touch "$src/complete"
    fi
    # Its build wants protoc, which grpcio-tools brings.
    venv protoc grpcio-tools
    cat >"$cache/bin/protoc" <<SH
#!/usr/bin/env bash
exec "$cache/venv-protoc/bin/python" -m grpc_tools.protoc "\$@" -I"\$(echo "$cache"/venv-protoc/lib/python3*/site-packages/grpc_tools/_proto)"
SH
    chmod +x "$cache/bin/protoc"
    # Its authorization tests expect this user; where it can't be added they fail.
    { "$cache/bin/etcdctl" user add root:rootpwd && "$cache/bin/etcdctl" user grant-role root root; } >/dev/null 2>&1 || true
    # test_cluster waits for a member that nobody starts, test_move_leader for three members.
    (cd "$src" && unset RUSTFLAGS ROCKSDB_LIB_DIR &&
        TEST_ENDPOINT=$endpoint PROTOC=$cache/bin/protoc CARGO_TARGET_DIR=$cache/target timeout "$suite_max" \
            cargo test --no-fail-fast --test client --test namespace -- \
            --test-threads 1 --include-ignored --skip test_cluster --skip test_move_leader) >"$log" 2>&1 || true
    grep -E '^test .* \.\.\. FAILED' "$log" | cut -d' ' -f2 | sort >"$cache/logs/etcd-client.failed"
    grep -q '^test result' "$log" || { echo "etcd-client: did not finish, see $log"; return 1; }
    echo "etcd-client: $(grep -cE '^test .* \.\.\. ok' "$log") passed, $(wc -l <"$cache/logs/etcd-client.failed") failed"
    sed 's/^/  /' "$cache/logs/etcd-client.failed"
}

for suite in $suites; do
    case $suite in
    etcd-client | etcd3 | aetcd) "run_$suite" || status=1 ;;
    *) echo "no such suite: $suite" >&2; exit 2 ;;
    esac
done
exit "${status:-0}"
