# Installs what is missing, and nothing else. Sourced by demo.sh and test.sh: `setup_packages PACKAGE...`.
# Works as root or with sudo on Debian 12 and later; says what it does.

say() { printf '==> %s\n' "$*"; }

setup_packages() {
    local missing=() package sudo=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "these packages are missing and need root or sudo: ${missing[*]}" >&2; return 7; }
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
}

# What the build needs. CMake and a compiler that are already there by other ways are taken as they are.
build_packages() {
    echo libdnnl-dev libprotobuf-c-dev protobuf-c-compiler libturbojpeg0-dev libspng-dev libzip-dev libjansson-dev \
        zlib1g-dev pkg-config libc6-dev
    command -v gcc >/dev/null || echo gcc
    command -v cmake >/dev/null || echo cmake
    command -v ninja >/dev/null || command -v make >/dev/null || echo make
}

# configure PRESET [cmake arguments]: build/PRESET
configure() {
    local preset=$1 generator=()
    shift
    [ -e "build/$preset/CMakeCache.txt" ] || ! command -v ninja >/dev/null || generator=(-G Ninja)
    cmake --preset "$preset" "${generator[@]}" "$@"
}
