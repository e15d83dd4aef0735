#!/usr/bin/env bash
# Builds the native module into src/zeroskip/ for work on it: tools/build_native.sh [BUILD_FOLDER]
#
# An editable install has a copy of the module of its own and imports that one, so it is replaced too.
set -euo pipefail
cd "$(dirname "$0")/.."
build="${1:-build/dev}"
python="${PYTHON:-python}"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" >/dev/null
cmake --build "$build"

put() { # a module in use keeps its file: the new one takes the name
  cp "$1" "$(dirname "$2")/.$(basename "$2").tmp" && mv "$(dirname "$2")/.$(basename "$2").tmp" "$2"
}
for module in "$build"/_native*.so; do
  put "$module" "src/zeroskip/$(basename "$module")"
  imported=$("$python" - <<'FIND' || true
import importlib.util, pathlib
package = importlib.util.find_spec("zeroskip")
if package and pathlib.Path(package.origin).samefile("src/zeroskip/__init__.py"):
    native = importlib.util.find_spec("zeroskip._native")
    print(native.origin if native else "")
FIND
  )
  if [ -n "$imported" ] && ! [ "$imported" -ef "src/zeroskip/$(basename "$module")" ]; then put "$module" "$imported"; fi
done
