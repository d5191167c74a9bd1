#!/bin/bash
# library.sh - the library as its users meet it: installed under a DESTDIR, found with pkg-config, linked shared and static,
# from C and from C++; exports; uninstall.  TAP on standard output, run by tests/run (GIST_BUILD names the build).
set -u
n=0
log=$(mktemp -d) || exit 1
trap 'rm -rf "$log"' EXIT

check() { # NAME COMMAND...
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >"$log/out" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$log/out" | tail -n 40
    fi
}
skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}

check "the libraries export what gist.h declares" sh dev/check_exports "$GIST_BUILD"

if nm "$GIST_BUILD/gist" | grep -qE '__(asan|tsan)_init'; then
    skip "an installed library" "a sanitizer build is not for installing"
    echo "1..$n"
    exit 0
fi

# The compiler of this build; may be several words.
cc=$(cat "$GIST_BUILD/cc")
cxx=${CXX:-c++}
root=$log/root
inside=$root/usr
strict="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
export PKG_CONFIG_PATH=$inside/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
# The sysroot prefix belongs to our own paths only: drop it from system directories.
flags() { pkg-config "$@" gist | sed "s|-\([IL]\)$root/usr/\(include\|lib\)/|-\1/usr/\2/|g"; }

copy() {
    make --no-print-directory BUILD="${GIST_BUILD#"$PWD"/}" DESTDIR="$root" PREFIX=/usr "$1" -o all
}
check "make install" copy install
check "installed files" test -x "$inside/bin/gist" -a -f "$inside/include/gist.h" -a -f "$inside/lib/libgist.a" \
    -a -L "$inside/lib/libgist.so" -a -f "$inside/lib/pkgconfig/gist.pc"
check "the shared library names its version" sh -c "readelf -d '$inside/lib/libgist.so' | grep -q 'SONAME.*libgist.so.[0-9]'"
same_version() {
    [ "$(pkg-config --modversion gist)" = "$("$inside/bin/gist" --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*')" ]
}
check "gist --version and pkg-config agree" same_version

shared() { $cc -std=c11 $strict examples/minimal.c $(flags --cflags --libs) -o "$log/shared"; }
static() {
    $cc -std=c11 $strict examples/minimal.c $(flags --cflags) "$inside/lib/libgist.a" \
        $(pkg-config --libs libpcre2-8 libutf8proc jansson libxxhash) -lm -lpthread -o "$log/static"
}
cplusplus() { $cxx -std=c++11 $strict -x c++ examples/minimal.c -x none $(flags --cflags --libs) -o "$log/cplusplus"; }
usage() { # a program that was linked right starts, and says how it is used
    LD_LIBRARY_PATH=$inside/lib "$1" 2>"$log/usage"
    [ $? -eq 2 ] && grep -q usage "$log/usage"
}
refuses() {
    LD_LIBRARY_PATH=$inside/lib "$1" "$log/no-such-model" prompt input 2>"$log/err"
    [ $? -eq 1 ] && grep -q no-such-model "$log/err"
}
generates() {
    LD_LIBRARY_PATH=$inside/lib "$1" "$model" "Answer in one word." "Which?" >"$log/text" && grep -q 'gist tokens' "$log/text"
}
model=tests/data/llama/mha-f32
for kind in shared static cplusplus; do
    if [ $kind = cplusplus ] && ! command -v "$cxx" >/dev/null; then
        skip "examples/minimal.c as C++" "no $cxx here"
        continue
    fi
    check "examples/minimal.c, $kind, builds without a warning" $kind
    check "... and starts" usage "$log/$kind"
    check "... and names a model that is not there" refuses "$log/$kind"
    check "... and generates from a gist" generates "$log/$kind"
done

batch() { # the other example: three questions, three answers
    $1 $strict $2 examples/batch.c -x none $(flags --cflags --libs) -o "$log/batch" && usage "$log/batch" &&
        LD_LIBRARY_PATH=$inside/lib "$log/batch" "$model" "Answer." one two three >"$log/text" &&
        [ "$(grep -c 'ended by' "$log/text")" -eq 3 ]
}
check "examples/batch.c answers many at once" batch "$cc -std=c11" "-x c"
if command -v "$cxx" >/dev/null; then check "... and is C++ too" batch "$cxx -std=c++11" "-x c++"; fi

check "make uninstall" copy uninstall
nothing_left() { [ -z "$(find "$root" ! -type d)" ]; }
check "nothing is left" nothing_left
echo "1..$n"
