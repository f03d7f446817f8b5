#!/bin/sh
# What Lighthouse says of a running page: sh tests/drills/service/lighthouse.sh http://127.0.0.1:8000 "?text=a+dog"
# It needs npx and a Chromium; run it outside the repository, since npx leaves files behind.
set -eu
url=$1
shift
for address in "" "$@"; do
    CHROME_PATH=${CHROME_PATH:-$(command -v chromium)} npx --yes lighthouse@12.2.3 "$url/$address" --quiet \
        --only-categories=accessibility,best-practices --chrome-flags="--headless=new --no-sandbox" --output=json |
        python3 -c 'import json, sys
found = json.load(sys.stdin)
print(sys.argv[1], {name: round(100 * one["score"]) for name, one in found["categories"].items()})
for one in found["audits"].values():
    if one["score"] not in (None, 1):
        print("  " + one["id"], one["title"])' \
            "$url/$address"
done
