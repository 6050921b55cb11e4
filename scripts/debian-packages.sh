#!/usr/bin/env bash
# debian-packages.sh WHAT-FOR PACKAGE...: installs what is missing when it may, else says how to, and never fails:
# whatever needs a package reports for itself that it is missing.
set -u
what=$1
shift
command -v dpkg-query >/dev/null || { echo "note: $what wants these (Debian's names): $*"; exit 0; }

missing=()
for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
    echo "installing for $what: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null </dev/null ||
        echo "note: could not install ${missing[*]}; $what may not work"
else
    echo "note: for $what, run: sudo apt-get install --no-install-recommends ${missing[*]}"
fi
exit 0
