#!/usr/bin/env bash
# A tour of the config store, told by the `sso` command alone. It needs a throw-away system around it:
#   sso dev -- examples/tour.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
application='OrderRouting.Settings'
identifier='ConfigProperties'

if [ -z "${SSO_CONFIG:-}" ]; then
    echo 'The tour needs a throw-away system: sso dev -- examples/tour.sh' >&2
    exit 2
fi

work=$(mktemp -d)
watcher=''
finish() {
    if [ -n "$watcher" ]; then kill "$watcher" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
chapter=0
heading() {
    chapter=$((chapter + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$chapter" "$1" "$plain"
    if [ $# -gt 1 ]; then printf '   %s\n' "${@:2}"; fi
}

# Prints the command as one would type it, then runs it.
show() {
    local word line=''
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./=:@-]*) line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '\n   $%s\n' "$line"
    "$@"
}

# The same for a command that has to be refused.
refused() {
    local code=0
    show "$@" 2>&1 || code=$?
    if [ "$code" -eq 0 ]; then
        echo 'tour: this should have been refused' >&2
        exit 1
    fi
    printf '   -> refused, exit code %d\n' "$code"
}

# Waits until a file has this many lines.
lines() {
    local tries
    for tries in $(seq 100); do
        if [ "$(wc -l <"$1")" -ge "$2" ]; then return 0; fi
        sleep 0.1
    done
    echo "tour: after $tries tries, $1 still has fewer than $2 lines" >&2
    exit 1
}

heading 'The system' 'One master secret server, one SSO server. Who is asking, and are there keys?'
show sso --profile admin status

heading 'An application' \
    'Its fields are the values of a configuration; two of them are masked.' \
    'An affiliate administrator creates it from a file in the format of the reference product.'
if sso --profile affiliate-admin app show "$application" >/dev/null 2>&1; then
    show sso --profile affiliate-admin app delete "$application" --yes
fi
show sso --profile affiliate-admin app create --file "$here/order-routing.xml"
show sso --profile app-admin app show "$application"

heading 'Values' \
    'Secrets come from standard input or a file: every process can read the command line of another.'
refused sso --profile app-admin config set "$application" "$identifier" PartnerApiKey=seen-by-everybody
cat >"$work/values.json" <<'JSON'
{
  "RoutingServiceUrl": "https://routing.dev.example/v1",
  "RetryLimit": "3",
  "PartnerApiKey": "partner-key-1",
  "ArchiveConnectionString": "Server=db01;Database=Archive;Integrated Security=true"
}
JSON
show sso --profile app-admin config set "$application" "$identifier" --values "$work/values.json"

heading 'Two ways to read' \
    'An administrator of the application sees that masked values exist, but not what they are.'
show sso --profile app-admin config get "$application" "$identifier"
printf '\n   A user of the application gets all values, and the read is recorded.\n'
show sso --profile user config get "$application" "$identifier" --reveal
show sso --profile user config get "$application" "$identifier" PartnerApiKey --reveal

heading 'Nobody else reads' 'The integration host has no role in this application.'
refused sso --profile host config get "$application" "$identifier" --reveal

heading 'Push instead of poll' \
    'A client watches; every new revision reaches it within a second, from whichever server.'
printf '\n   $ sso --profile user config watch %s %s --output json &\n' "$application" "$identifier"
sso --profile user config watch "$application" "$identifier" --output json >"$work/changes" &
watcher=$!
lines "$work/changes" 1
show sso --profile app-admin config set "$application" "$identifier" RetryLimit=4
lines "$work/changes" 2
printf '\n   The watcher got:\n'
sed 's/^/   /' "$work/changes"
kill "$watcher" 2>/dev/null || true
wait "$watcher" 2>/dev/null || true
watcher=''

heading 'Two administrators at once' \
    'Who says which revision the change is meant for does not overwrite somebody else.'
refused sso --profile app-admin config set "$application" "$identifier" RetryLimit=9 --if-revision 1
show sso --profile app-admin config set "$application" "$identifier" RetryLimit=5 --if-revision 2

heading 'A new field' 'Without creating the application again, and without touching what is stored.'
show sso --profile app-admin app add-field "$application" DeadLetterQueue
show sso --profile app-admin config set "$application" "$identifier" DeadLetterQueue=orders-dead

heading 'History and the way back' 'The last ten revisions are kept, sealed as everything else.'
show sso --profile app-admin config history "$application" "$identifier"
show sso --profile app-admin config rollback "$application" "$identifier" --revision 1
show sso --profile app-admin config get "$application" "$identifier"

heading 'From a deployment file' 'First what it would do, then the same for real.'
show sso --profile app-admin config import "$application" "$identifier" \
    --file "$here/order-routing-settings.xml" --dry-run
show sso --profile app-admin config import "$application" "$identifier" \
    --file "$here/order-routing-settings.xml"
show sso --profile user config get "$application" "$identifier" --reveal --output json

heading 'Switched off' 'A disabled application keeps its data and serves none of them.'
show sso --profile app-admin app disable "$application"
refused sso --profile user config get "$application" "$identifier" --reveal
show sso --profile app-admin app enable "$application"

heading 'Who did what' 'Every change, every reveal and everybody who was denied something, never a value.'
show sso --profile admin audit list --application "$application"

printf '\n%sThat was the tour.%s\n' "$bold" "$plain"
