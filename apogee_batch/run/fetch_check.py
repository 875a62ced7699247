"""The script that compares a download with the checksums of the survey's archive.

It is a shell script because the machine that fetches the files may not be the one that reads them. The
archive has one file of SHA-1 sums for each folder; in some of them the name of a spectrum ends with a date
(-MJD), which the plain name is a link to, and some spectra are in none. `sha1sum --check` alone would pass
over both.
"""

CHECK_SCRIPT = r"""#!/bin/sh
# Compare fetched apStar files with the checksums of the archive:  sh check.sh FOLDER
# It reads files.txt beside itself and writes missing.txt, damaged.txt and unchecked.txt there.
# Exit code: 0 all files are there and none differs from its checksum; 1 otherwise.
set -eu
LC_ALL=C
export LC_ALL
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
spectra=${1:-"$here/spectra"}
fail() { echo "error: $1" >&2; exit 1; }
[ -d "$spectra" ] || fail "$spectra: no such folder; name the one that the files were fetched into"
[ -f "$here/files.txt" ] || fail "$here/files.txt is missing; write it with apogee-batch fetch-list"
sha1='sha1sum'
command -v sha1sum >/dev/null 2>&1 || sha1='shasum -a 1'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CDPATH='' cd -- "$spectra"
find . -type f -name '*.sha1sum' | sort >"$work/sums"
find . -type f -name 'a[ps]Star*' >"$work/present"
: >"$work/known"
: >"$work/missing"
: >"$work/unchecked"
awk -v work="$work" '
function read_sums(file,   folder, line, hash, name, key) {
  folder = file
  sub(/[^\/]*$/, "", folder)
  while ((getline line < file) > 0) {
    hash = tolower(substr(line, 1, 40))
    if (hash !~ /^[0-9a-f]+$/ || length(hash) != 40) continue
    name = substr(line, 41)
    sub(/^[ \t]+\*?/, "", name)
    sub(/^.*\//, "", name)
    plain[folder name] = hash
    if (!sub(/-[0-9][0-9][0-9][0-9][0-9]\.fits$/, ".fits", name)) continue
    key = folder name
    if (!(key in dated)) dated[key] = hash
    else if (dated[key] != hash) dated[key] = "several"
  }
  close(file)
}
BEGIN {
  while ((getline path < (work "/sums")) > 0) read_sums(path)
  while ((getline path < (work "/present")) > 0) present[path] = 1
}
{
  path = "./" $0
  if (!(path in present)) { print $0 > (work "/missing"); next }
  hash = path in plain ? plain[path] : path in dated ? dated[path] : "none"
  if (length(hash) == 40) print hash "  " path > (work "/known")
  else print $0 > (work "/unchecked")
}' "$here/files.txt"
$sha1 -c "$work/known" >"$work/said" 2>"$work/complaints" || true
[ ! -s "$work/known" ] || [ -s "$work/said" ] || { cat "$work/complaints" >&2; exit 1; }
sed -n 's/: FAILED.*$//; t found
d
: found
s/^\.\///p' "$work/said" >"$work/damaged"
for kind in missing damaged unchecked; do
  mv "$work/$kind" "$here/$kind.txt"
done
count() { wc -l <"$1" | tr -d ' '; }
n_same=$(grep -c ': OK$' "$work/said" || true)
echo "$n_same as the archive has them, $(count "$here/damaged.txt") damaged," \
  "$(count "$here/missing.txt") missing, $(count "$here/unchecked.txt") without a checksum"
if [ -s "$here/missing.txt" ]; then
  echo "missing: fetch again with the same command; what the archive lacks stays in $here/missing.txt"
fi
if [ -s "$here/damaged.txt" ]; then
  echo "damaged: delete the files of $here/damaged.txt and fetch again with the same command"
fi
if [ "$n_same" = 0 ]; then
  echo "no file could be compared: are the .sha1sum files there?"
fi
[ "$n_same" != 0 ] && [ ! -s "$here/missing.txt" ] && [ ! -s "$here/damaged.txt" ]
"""
