#!/usr/bin/env bash
# Checks that each patch of the zoo has its header, applies to the tree as it is, and compiles with it.
#
#   sim/zoo/check.sh            all
#   sim/zoo/check.sh R01 W05    these
#   sim/zoo/check.sh --apply    only headers and whether they apply, which takes a second
#
# Works on a copy of the tracked files under the target directory, and compiles as the simulator does. To save time
# as many patches as fit together are compiled at once; where that fails, one by one.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
zoo=$root/sim/zoo
target=${CARGO_TARGET_DIR:-$root/target}
copy=$target/zoo-copy
export RUSTFLAGS="--cfg madsim"
# The copy may lie inside this repository: git must not look there for where paths begin.
export GIT_CEILING_DIRECTORIES=$target

compile=1
if [ "${1:-}" = --apply ]; then compile=0; shift; fi
ids=("$@")
if [ ${#ids[@]} = 0 ]; then
    for file in "$zoo"/*.patch; do ids+=("$(basename "$file" .patch)"); done
fi

rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached -- . ':!:tests' ':!:docs' | tar -c --null --files-from=- | tar -x -C "$copy"
mkdir -p "$copy/tests"
cd "$copy"

bad=()
fresh=()
for id in "${ids[@]}"; do
    patch=$zoo/$id.patch
    ok=1
    for key in Id Tier Reference Mechanism Violation Oracle Needs Schedule; do
        grep -q "^$key:" "$patch" || { echo "$id: no $key"; ok=0; }
    done
    grep -qx "Id: $id" "$patch" || { echo "$id: its Id is another"; ok=0; }
    if grep '^+++ ' "$patch" | grep -qv '^+++ b/src/'; then echo "$id: it changes more than src/"; ok=0; fi
    git apply --check "$patch" || { echo "$id: does not apply"; ok=0; }
    if [ $ok = 1 ]; then fresh+=("$id"); else bad+=("$id"); fi
done
echo "${#fresh[@]} of ${#ids[@]} apply"

build() { cargo check --quiet --profile sim -p kontiki 2>"$copy/errors" || return 1; }

alone() {
    for id in "$@"; do
        git apply "$zoo/$id.patch"
        build || { echo "$id: does not compile"; grep -A6 '^error' errors | head -40; bad+=("$id"); }
        git apply -R "$zoo/$id.patch"
    done
}

left=("${fresh[@]}")
while [ $compile = 1 ] && [ ${#left[@]} -gt 0 ]; do
    group=()
    later=()
    for id in "${left[@]}"; do
        if git apply "$zoo/$id.patch" 2>/dev/null; then group+=("$id"); else later+=("$id"); fi
    done
    if build; then together=1; else together=0; fi
    for ((n = ${#group[@]} - 1; n >= 0; n--)); do git apply -R "$zoo/${group[n]}.patch"; done
    if [ $together = 1 ]; then echo "compile: ${group[*]}"; else alone "${group[@]}"; fi
    left=(${later[@]+"${later[@]}"})
done

if [ ${#bad[@]} -gt 0 ]; then
    echo "bad: ${bad[*]}"
    exit 1
fi
echo "the zoo is fresh"
