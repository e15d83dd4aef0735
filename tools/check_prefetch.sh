#!/usr/bin/env bash
# Fails when a loop that asks for memory ahead was compiled without: tools/check_prefetch.sh BUILD_FOLDER
#
# A compiler may take a function that does nothing but ask for one without effect, and drop its calls. Results stay right, and
# nothing but time would tell.
set -euo pipefail
build="${1:?usage: tools/check_prefetch.sh BUILD_FOLDER}"
objdump="${OBJDUMP:-objdump}"
bad=0
count=0
while IFS= read -r -d '' object; do
  code=$("$objdump" -d --no-show-raw-insn "$object")
  grep -q '>:$' <<<"$code" || continue # a file of another processor holds nothing
  count=$((count + 1))
  if ! grep -qE '[[:space:]](prefetch|prfm)' <<<"$code"; then
    echo "$object asks for nothing ahead: is the function that asks always inlined?" >&2
    bad=$((bad + 1))
  fi
# sddmm_tiles.cc finds tiles, and multiplies nothing.
done < <(find "$build" \( -name 'gspmm_*.cc.o' -o -name 'gat_*.cc.o' -o -name 'sddmm_*.cc.o' \) ! -name sddmm_tiles.cc.o -print0)
if [ "$count" -eq 0 ]; then
  echo "check_prefetch: $build holds no object of gspmm, gat or sddmm; build the native side first." >&2
  exit 1
fi
echo "check_prefetch: $count objects, $bad without"
[ "$bad" -eq 0 ]
