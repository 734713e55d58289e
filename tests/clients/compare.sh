#!/usr/bin/env bash
# Names what the last runs of run.sh failed that a real etcd 3.5.1 passes; exits with 1 if there is anything.
#
#   tests/clients/compare.sh [etcd-client|etcd3|aetcd]...
set -euo pipefail
cache=${KONTIKI_CLIENTS:-$HOME/.cache/kontiki/clients}
baseline=$(dirname "$0")/baseline-3.5.1.txt
worse=0
for suite in ${*:-etcd-client etcd3 aetcd}; do
    failed=$cache/logs/$suite.failed
    [ -e "$failed" ] || { echo "$suite: was not run" >&2; exit 2; }
    new=$(comm -23 <(sort -u "$failed") <(sed -n "s/^$suite \([^ ]*\).*/\1/p" "$baseline" | sort -u))
    [ -z "$new" ] || { sed "s/^/$suite /" <<<"$new"; worse=1; }
done
exit $worse
