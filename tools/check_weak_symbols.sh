#!/usr/bin/env bash
# Fails when a file that is compiled for a newer instruction set defines a weak symbol: tools/check_weak_symbols.sh BUILD_FOLDER
#
# The linker keeps one copy of a weak symbol (an inline function, a template of the standard library) for the whole program. If
# it keeps the one from an AVX-512 file, every caller runs AVX-512 instructions, and the program dies where there are none.
set -euo pipefail
build="${1:?usage: tools/check_weak_symbols.sh BUILD_FOLDER}"
nm="${NM:-nm}"
bad=0
count=0
while IFS= read -r -d '' object; do
  count=$((count + 1))
  # W, V: weak; u: unique across the program, which inline variables become. Weak but undefined is no definition.
  if weak=$("$nm" -C --defined-only "$object" | grep -E '^[0-9a-fA-F]+ [WVuwv] '); then
    printf '%s defines weak symbols:\n%s\n' "$object" "$weak" >&2
    bad=$((bad + 1))
  fi
done < <(find "$build" \( -name '*_avx*.cc.o' -o -name '*_amx.cc.o' -o -name '*_neon*.cc.o' \) -print0)
if [ "$count" -eq 0 ]; then
  echo "check_weak_symbols: $build holds no object of an _avx2, _avx512 or _neon file; build the native side first." >&2
  exit 1
fi
echo "check_weak_symbols: $count objects, $bad with weak symbols"
[ "$bad" -eq 0 ]
