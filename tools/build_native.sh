#!/usr/bin/env bash
# Builds the native module into src/zeroskip/ for work on it: tools/build_native.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build="${1:-build/dev}"
python="${PYTHON:-python}"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" >/dev/null
cmake --build "$build"
for module in "$build"/_native*.so; do
  cp "$module" "src/zeroskip/.$(basename "$module").tmp"
  mv "src/zeroskip/.$(basename "$module").tmp" "src/zeroskip/$(basename "$module")"
done
