#!/bin/sh
# Generate the gRPC code of gateway/api from proto/, or with --check, say whether what is committed is fresh.
set -eu

usage="usage: proto/generate.sh [--check]"
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=$(command -v "$python" || command -v python3)

generate() { # DIRECTORY
    # The directory of a .proto is its package and the Python package of its code: no import is rewritten.
    (cd "$root/proto" && find gateway -name '*.proto' | LC_ALL=C sort) | (
        cd "$root"
        xargs "$python" -m grpc_tools.protoc -I proto --python_out="$1" --pyi_out="$1" --grpc_python_out="$1"
    )
}

generated() { # DIRECTORY
    (cd "$1" && find gateway/api \( -name '*_pb2.py' -o -name '*_pb2.pyi' -o -name '*_pb2_grpc.py' \) | LC_ALL=C sort)
}

case ${1:-} in
"")
    generate "$root"
    ;;
--check)
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    generate "$fresh"
    generated "$fresh" >"$fresh/wanted"
    generated "$root" >"$fresh/present"
    stale=0
    diff "$fresh/wanted" "$fresh/present" >"$fresh/names" || stale=1
    sed -n 's/^< /missing: /p; s/^> /has no .proto: /p' "$fresh/names" >&2
    while read -r file; do
        if [ -e "$root/$file" ] && ! cmp -s "$fresh/$file" "$root/$file"; then
            echo "differs: $file" >&2
            stale=1
        fi
    done <"$fresh/wanted"
    if [ "$stale" -ne 0 ]; then
        echo "generated code is not what proto/ says: run proto/generate.sh and commit the result" >&2
        exit 1
    fi
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
